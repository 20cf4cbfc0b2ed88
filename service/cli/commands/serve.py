"""`lora serve` and `lora demo`: a service, and what it is for."""

from typing import Annotated

from typer import Option


def serve(
    host: Annotated[str | None, Option(help="Address to listen on (LORA_HOST).")] = None,
    port: Annotated[int | None, Option(help="Port to listen on, 0 for a free one (LORA_PORT).")] = None,
    insecure: Annotated[
        bool, Option("--insecure", help="Let others reach a service that asks for no key (LORA_INSECURE).")
    ] = False,
    processes: Annotated[
        int | None, Option(help="Processes that serve on one port, with a PostgreSQL (LORA_PROCESSES).", min=1)
    ] = None,
    fd: Annotated[int | None, Option(help="Listen on this open socket, a file descriptor.", min=0)] = None,
    as_json: Annotated[bool, Option("--json", help="Print one line of JSON when it is ready, and no more.")] = False,
) -> int:
    """Run the service until it is told to stop (Ctrl-C or SIGTERM).

    Examples:

    lora serve

    LORA_DATABASE_URL=sqlite:///lora.db lora serve --port 9000

    LORA_DATABASE_URL=postgresql+psycopg://lora@localhost/lora lora serve --processes 4
    """
    from service.cli.serve import serve as run

    return run(host, port, insecure=insecure or None, processes=processes, fd=fd, as_json=as_json)


def demo(
    keep: Annotated[bool, Option("--keep", help="Leave the service running at the end.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print what came of it as one JSON document.")] = False,
) -> int:
    """Do the main job once: create, train, watch the losses, run forwards, over real HTTP.

    Example:

    lora demo --keep
    """
    from service.cli.demo import demo as run

    return run(keep=keep, as_json=as_json)
