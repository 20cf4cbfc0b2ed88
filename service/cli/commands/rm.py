"""`lora rm` and `lora cancel`: what is of no more use."""

import sys
from typing import Annotated

import typer
from typer import Argument, Option

from service.cli.calling import Place, calling
from service.cli.completion import of


@calling
def rm(
    at: Place,
    things: Annotated[
        list[str],
        Argument(
            metavar="ID...",
            autocompletion=of("models", "jobs", "bases", "datasets", "sweeps"),
            help="Models, jobs, bases, data sets and sweeps.",
        ),
    ],
    force: Annotated[bool, Option("--force", help="Cancel first what trains or waits.")] = False,
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete models, jobs, bases, data sets or sweeps, after asking on a terminal.

    All are looked for before the first is deleted. With a sweep go its models but for the best.

    Examples:

    lora rm mdl_01M85RD3BCCMDPHHSCEG79B55H --force

    lora models -q --name trial | xargs lora rm --yes
    """
    from service.cli import printing
    from service.cli.kinds import found, kind_of

    with at.client() as client:
        chosen = list(dict.fromkeys((kind_of(thing), found(client, thing)) for thing in things))
        for kind, each in chosen:
            kind.read(client, each)
        if not yes and sys.stdin.isatty():
            named = ", ".join(f"the {kind.name} {each}" for kind, each in chosen)
            if not typer.confirm(f"Delete {named}?", err=True):
                chosen = []
        for kind, each in chosen:
            kind.delete(client, each, force)
            if not at.as_json:
                print(f"{each} is deleted")
    if at.as_json:
        printing.document({"deleted": [each for _, each in chosen]})


@calling
def cancel(
    at: Place,
    things: Annotated[
        list[str],
        Argument(metavar="ID...", autocompletion=of("jobs", "sweeps"), help="Jobs and sweeps, or how their ids begin."),
    ],
) -> None:
    """Cancel jobs, and all jobs of sweeps. One that has ended stays as it is.

    The models stay, and keep the versions they have.

    Examples:

    lora jobs --state queued -q | xargs lora cancel

    lora cancel swp_01M85RD3BCCMDPHHSCEG79B55M
    """
    from service.cli import printing
    from service.cli.kinds import JOB, KINDS, found, kind_of

    cancels = {kind.name: kind.cancel for kind in KINDS.values() if kind.cancel}
    with at.client() as client:
        kinds = [kind_of(thing) if kind_of(thing).cancel else JOB for thing in things]
        chosen = [(kind, found(client, thing, kind)) for kind, thing in zip(kinds, things, strict=True)]
        cancelled = [(kind, cancels[kind.name](client, each)) for kind, each in chosen]
    if at.as_json:
        printing.document([each for _, each in cancelled])
        return
    for kind in dict.fromkeys(kinds):
        printing.listed([each for of, each in cancelled if of is kind], kind.columns, as_json=False)
