"""Whether a database can be used, found out without changing it."""

import os
import shutil
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryFile

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from service.models.database import cause_of, engine_on, revision, shown, url_of
from service.models.store import StoreRefused
from service.models.tables import REVISION

MIB = 2**20


def reached(text: str) -> str:
    """One sentence about a database that a server could use, whether or not one does.

    Raises:
        StoreRefused: for one that it could not.
    """
    url = url_of(text)
    file = Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
    if file is not None and not file.exists():
        return f"{shown(url)} will be made; {_space(file.parent)}"
    at = _revision(url)
    said = (
        "empty"
        if at is None
        else "up to date"
        if at == REVISION
        else f"at revision {at}, where this version has {REVISION}"
    )
    if file is None:
        return f"{shown(url)} answers; it is {said}"
    if not os.access(file, os.W_OK):
        raise StoreRefused(f"{file} cannot be written to")
    return f"{shown(url)} is {said}; {_space(file.parent)}"


def _revision(url: URL) -> str | None:
    engine = engine_on(url)
    try:
        return revision(engine)
    except DBAPIError as error:
        raise StoreRefused(f"the database {shown(url)} cannot be used: {cause_of(error)}") from error
    finally:
        engine.dispose()


def _space(folder: Path) -> str:
    """How much room a folder has, in which files can be made.

    Raises:
        StoreRefused: where none can.
    """
    try:
        with closing(TemporaryFile(dir=folder)):
            return f"{shutil.disk_usage(folder).free // MIB} MiB are free beside it"
    except OSError as error:
        raise StoreRefused(f"no file can be made in {folder}: {error.strerror}") from None
