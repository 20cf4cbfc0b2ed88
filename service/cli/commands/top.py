"""`lora top`."""

from typing import Annotated

from typer import Option

from service.cli.calling import Place, calling


@calling
def top(
    at: Place,
    once: Annotated[bool, Option("--once", help="Print one view and end.")] = False,
    every: Annotated[float, Option(metavar="SECONDS", min=0.1, max=60, help="Time between two views.")] = 1.0,
) -> None:
    """Watch the service: jobs, memory, forwards and their latency. q or Ctrl-C ends it.

    Off a terminal it prints one view.

    Example:

    lora top --every 0.5
    """
    from service.cli import printing
    from service.cli.top import once as one_view
    from service.cli.top import watch

    with at.client() as client:
        if once or at.as_json or not printing.for_a_reader():
            one_view(at, client)
        else:
            watch(at, client, every)
