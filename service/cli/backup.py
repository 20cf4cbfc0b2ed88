"""`lora backup` and `lora restore`: all that the service remembers, as one file and back."""

import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from service.settings import SettingsError, load

Copy = Callable[[str, Callable[[int, int], None]], None]


def backup(path: Path) -> int:
    """Write a backup of the database to a new file; the exit status."""
    from service.models import backup as copies

    return _copied(
        "Backing up",
        lambda database: f"{path} holds all of {database}",
        lambda url, watch: copies.backup(url, path, watch),
    )


def restore(path: Path) -> int:
    """Fill an empty database from a backup; the exit status."""
    from service.models import backup as copies

    return _copied(
        "Restoring",
        lambda database: f"{database} holds all of {path}",
        lambda url, watch: copies.restore(path, url, watch),
    )


def _copied(doing: str, done: Callable[[str], str], copy: Copy) -> int:
    from service.models.database import shown, url_of
    from service.models.store import StoreRefused

    try:
        url = load().database_url
        if url is None:
            raise SettingsError("LORA_DATABASE_URL names no database, and without one nothing lasts")
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(doing, total=None)
            copy(url.get_secret_value(), lambda rows, total: progress.update(task, completed=rows, total=total))
        print(done(shown(url_of(url.get_secret_value()))))
        return 0
    except (SettingsError, StoreRefused) as error:
        print(f"lora: {error}", file=sys.stderr)
        return 2
