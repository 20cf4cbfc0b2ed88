"""`lora show`."""

from typing import Annotated

from typer import Argument, Option

from service.cli.calling import Place, calling
from service.cli.completion import of


@calling
def show(
    at: Place,
    thing: Annotated[
        str,
        Argument(
            metavar="ID",
            autocompletion=of("models", "jobs", "bases", "datasets", "sweeps"),
            help="The id of anything, the beginning of one, or a model's name.",
        ),
    ],
    follow: Annotated[bool, Option("--follow", "-f", help="Of a job: watch the losses until it ends.")] = False,
    versions: Annotated[bool, Option("--versions", help="Of a model: list the versions that are kept.")] = False,
) -> None:
    """Show a model, a job, a base, a data set or a sweep.

    Examples:

    lora show digits --versions

    lora show job_01M85RD3BCCMDPHHSCEG79B55J --follow
    """
    from service.cli import columns, printing
    from service.cli.follow import watch
    from service.cli.kinds import JOB, MODEL, found, kind_of
    from service.cli.standings import show_sweep
    from service.cli.statuses import Refused

    with at.client() as client:
        kind = kind_of(thing)
        if (follow and kind is not JOB) or (versions and kind is not MODEL):
            wanted = "follow is of a job" if follow else "versions are of a model"
            raise Refused(f"{thing} is a {kind.name}; --{wanted}")
        found_id = found(client, thing, kind)
        if versions:
            printing.listed(client.versions(found_id), columns.VERSIONS, as_json=at.as_json)
        elif follow:
            job = watch(client.job(found_id), as_json=at.as_json)
            if not at.as_json:
                printing.record(job, as_json=False)
        elif kind.name == "sweep":
            show_sweep(client.sweep(found_id), as_json=at.as_json)
        else:
            printing.record(kind.read(client, found_id), as_json=at.as_json)
