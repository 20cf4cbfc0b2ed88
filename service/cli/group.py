"""The group of commands, which turns what went wrong in one of them into a line and a status."""

import sys
from typing import Any

from typer import Abort
from typer.core import TyperGroup
from typer.exceptions import TyperException

from service.cli.statuses import Status, tell


class Commands(TyperGroup):
    """Commands that return their status, if it is another than 0, or raise what `service.cli.endings` knows."""

    def main(self, *words: Any, **options: Any) -> Any:
        """Run the command that the words name, and end the process with its status."""
        try:
            status = super().main(*words, **{**options, "standalone_mode": False})
        except TyperException as error:
            status = _misused(error)
        except Abort:  # Ctrl-C where something was asked
            status = Status.INTERRUPTED
        except Exception as error:
            from service.cli.endings import ending

            said, status = ending(error)
            tell(said)
        sys.exit(status or Status.OK)


def _misused(error: TyperException) -> Status:
    """Say what is wrong with the words of a command; `lora` alone has shown its help instead."""
    context = getattr(error, "ctx", None)
    if said := error.format_message():
        command = context.command_path if context else "lora"
        tell(f"{said.rstrip('.')}; `{command} --help` tells what there is")
    return Status.USAGE
