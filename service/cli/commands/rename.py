"""`lora rename`."""

from typing import Annotated

from typer import Argument

from service.cli import options as o
from service.cli.calling import Place, calling


@calling
def rename(
    at: Place, model: o.ModelId, name: Annotated[str, Argument(metavar="NAME", help="What to call it from now on.")]
) -> None:
    """Give a model another name. Its id stays.

    Example:

    lora rename mdl_01M85RD3BCCMDPHHSCEG79B55H digits
    """
    from service.cli import printing
    from service.cli.kinds import MODEL, found

    with at.client() as client:
        printing.record(client.update(found(client, model, MODEL), name=name), as_json=at.as_json)
