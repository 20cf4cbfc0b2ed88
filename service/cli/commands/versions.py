"""`lora versions` and `rollback`: what a model has been, and how it becomes that again."""

from typing import Annotated

from typer import Argument

from service.cli import options as o
from service.cli.calling import Place, calling


@calling
def versions(at: Place, model: o.ModelId) -> None:
    """List the versions of a model that are kept, newest first.

    Example:

    lora versions digits --json
    """
    from service.cli import columns, printing
    from service.cli.kinds import MODEL, found

    with at.client() as client:
        printing.listed(client.versions(found(client, model, MODEL)), columns.VERSIONS, as_json=at.as_json)


@calling
def rollback(
    at: Place,
    model: o.ModelId,
    version: Annotated[int | None, Argument(metavar="VERSION", help="Which; by default the one before.")] = None,
) -> None:
    """Publish an earlier version of a model anew, as its next one. Going back can be undone in the same way.

    Examples:

    lora rollback digits

    lora rollback digits 2
    """
    from service.cli import printing
    from service.cli.kinds import MODEL, found

    with at.client() as client:
        printing.record(client.roll_back(found(client, model, MODEL), version), as_json=at.as_json)
