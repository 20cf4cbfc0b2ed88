"""`lora backup` and `lora restore`: all that the service remembers, as one file and back."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from service.cli import printing
from service.cli.statuses import Refused
from service.settings import SettingsError, load

Copy = Callable[[str, Callable[[int, int], None]], None]


def backup(path: Path, *, as_json: bool) -> None:
    """Write a backup of the database to a new file.

    Raises:
        SettingsError, Refused
    """
    from service.models import backup as copies

    database = _copied("Backing up", lambda url, watch: copies.backup(url, path, watch))
    printing.done(f"{path} holds all of {database}", as_json=as_json, file=str(path), database=database)


def restore(path: Path, *, as_json: bool) -> None:
    """Fill an empty database from a backup.

    Raises:
        SettingsError, Refused
    """
    from service.models import backup as copies

    database = _copied("Restoring", lambda url, watch: copies.restore(path, url, watch))
    printing.done(f"{database} holds all of {path}", as_json=as_json, file=str(path), database=database)


def _copied(doing: str, copy: Copy) -> str:
    """The database that was copied, shown without its password."""
    from service.models.database import shown, url_of
    from service.models.store import StoreRefused

    url = load().database_url
    if url is None:
        raise SettingsError("LORA_DATABASE_URL names no database, and without one nothing lasts")
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(doing, total=None)
            copy(url.get_secret_value(), lambda rows, total: progress.update(task, completed=rows, total=total))
        return shown(url_of(url.get_secret_value()))
    except StoreRefused as error:
        raise Refused(str(error)) from None
