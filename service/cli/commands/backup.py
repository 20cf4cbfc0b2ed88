"""`lora backup` and `lora restore`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

AsJson = Annotated[bool, Option("--json", help="Print the result as one JSON document.")]


def backup(file: Annotated[Path, Argument(metavar="FILE", help="A new file.")], as_json: AsJson = False) -> None:
    """Write all that the database holds to a file, while the service runs or not (LORA_DATABASE_URL).

    Example:

    LORA_DATABASE_URL=sqlite:///lora.db lora backup monday.db
    """
    from service.cli.backup import backup as run

    run(file, as_json=as_json)


def restore(
    file: Annotated[Path, Argument(metavar="FILE", help="What `lora backup` wrote.")], as_json: AsJson = False
) -> None:
    """Fill an empty database from a backup; it may be one of another kind (LORA_DATABASE_URL).

    Example:

    LORA_DATABASE_URL=sqlite:///new.db lora restore monday.db
    """
    from service.cli.backup import restore as run

    run(file, as_json=as_json)
