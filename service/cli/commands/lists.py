"""`lora models`, `jobs`, `bases`, `datasets` and `sweeps`: what there is."""

from itertools import islice
from typing import Annotated

from typer import Option

from service.cli import options as o
from service.cli.calling import Place, calling
from service.cli.completion import of


@calling
def models(
    at: Place,
    name: Annotated[str | None, Option(help="Only those of this name.")] = None,
    search: Annotated[
        str | None, Option(metavar="TEXT", help="Only those whose name or id has this text, in any case.")
    ] = None,
    base: Annotated[str | None, Option(autocompletion=of("bases"), help="Only those that stand on this base.")] = None,
    limit: Annotated[int | None, Option(min=1, metavar="N", help="At most so many, the oldest first.")] = None,
    quiet: o.Quiet = False,
) -> None:
    """List the models.

    Examples:

    lora models --search tenant --limit 20

    lora models --name trial -q | xargs lora rm --yes
    """
    from service.cli import columns, printing
    from service.cli.kinds import BASE, found

    with at.client() as client:
        base_id = None if base is None else found(client, base, BASE)
        chosen = islice(client.models(name, search=search, base_id=base_id), limit)
        printing.listed(chosen, columns.MODELS, as_json=at.as_json, ids_only=quiet)


@calling
def jobs(
    at: Place,
    model: Annotated[str | None, Option(autocompletion=of("models"), help="Only those of this model.")] = None,
    state: Annotated[
        str | None, Option(help="Only those that are queued, running, succeeded, failed or cancelled.")
    ] = None,
    quiet: o.Quiet = False,
) -> None:
    """List the jobs, with the course of their loss.

    Examples:

    lora jobs --state running

    lora jobs --model digits --json
    """
    from service.cli import columns, printing
    from service.cli.kinds import MODEL, found

    with at.client() as client:
        model_id = None if model is None else found(client, model, MODEL)
        printing.listed(client.jobs(model_id, state), columns.JOBS, as_json=at.as_json, ids_only=quiet)


@calling
def bases(at: Place, quiet: o.Quiet = False) -> None:
    """List the frozen layers that models stand on.

    Example:

    lora bases --json
    """
    from service.cli import columns, printing

    with at.client() as client:
        printing.listed(client.bases(), columns.BASES, as_json=at.as_json, ids_only=quiet)


@calling
def datasets(at: Place, quiet: o.Quiet = False) -> None:
    """List the data sets that were uploaded.

    Example:

    lora datasets -q
    """
    from service.cli import columns, printing

    with at.client() as client:
        printing.listed(client.datasets(), columns.DATASETS, as_json=at.as_json, ids_only=quiet)


@calling
def sweeps(at: Place, quiet: o.Quiet = False) -> None:
    """List the sweeps.

    Example:

    lora sweeps
    """
    from service.cli import columns, printing

    with at.client() as client:
        printing.listed(client.sweeps(), columns.SWEEPS, as_json=at.as_json, ids_only=quiet)
