"""All that a database holds as one file of SQLite, whichever database it is itself, and back."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, Engine, LargeBinary, Table, create_engine, delete, func, insert, select, union_all
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from service.models.database import cause_of, engine_on, migrate, opened, revision, shown, url_of
from service.models.store import StoreRefused
from service.models.tables import LASTING, REVISION

EMPTY = 1  # row, which says that nothing has been written yet
SMALL_ROWS = 1_000  # read at a time; of those with tensors, one

# Told how many rows are copied, of how many.
Watch = Callable[[int, int], None]


def backup(url: str, path: Path, watch: Watch = lambda done, total: None) -> None:
    """Write all that a database holds at this moment into a new file; a server may go on with it meanwhile.

    The file has its name when all of it is on the disk. Only its owner may read it: it has all weights.

    Raises:
        StoreRefused: for a database that cannot be read, or a file that is there or cannot be written.
    """
    where = url_of(url)
    if where.get_backend_name() == "sqlite" and not Path(str(where.database)).exists():
        raise StoreRefused(f"there is no database {where.database}")
    if path.exists():
        raise StoreRefused(f"{path} is there already; name a new file")
    with (
        _told(f"{shown(where)} cannot be backed up to {path}"),
        TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,  # nobody else may look into it
    ):
        partial = Path(folder) / "partial"
        partial.touch(mode=0o600)
        target_url = URL.create("sqlite", database=str(partial))
        with _using(engine_on(where)) as source, _using(create_engine(target_url)) as target:
            _must_be_current(source, shown(where))
            migrate(target)
            _copy(source, target, watch)
        _to_disk(partial)
        _name(partial, path)
        _to_disk(path.parent)


def restore(path: Path, url: str, watch: Watch = lambda done, total: None) -> None:
    """Fill an empty database with what a backup holds, all of it or nothing.

    Raises:
        StoreRefused: for a file that is no backup of this version, or a database that is not empty or in use.
    """
    if not path.is_file():
        raise StoreRefused(f"there is no file {path}")
    where = url_of(url)
    with _told(f"{path} cannot be restored to {shown(where)}"), _using(_read_only(path)) as source:
        _must_be_current(source, str(path))
        with opened(where) as target:
            with target.connect() as connection:
                filled = _rows(connection) > EMPTY
            if filled:
                raise StoreRefused(f"the database {shown(where)} is not empty; restore to a new one")
            _copy(source, target, watch)


def _name(partial: Path, path: Path) -> None:
    try:
        path.hardlink_to(partial)  # a rename would take the place of a file that came meanwhile
    except FileExistsError:
        raise StoreRefused(f"{path} is there already; name a new file") from None
    except OSError:  # a filesystem without links
        partial.rename(path)


def _copy(source: Engine, target: Engine, watch: Watch) -> None:
    """Put the rows of all tables, as they are at one moment, in the place of those in the target."""
    with _snapshot(source) as from_, target.begin() as to:
        total = _rows(from_)
        done = 0
        for table in LASTING:
            to.execute(delete(table))
            rows = from_.execution_options(yield_per=_at_a_time(table)).execute(select(table))
            for part in rows.mappings().partitions():
                to.execute(insert(table), [dict(row) for row in part])
                done += len(part)
                watch(done, total)


def _rows(connection: Connection) -> int:
    """How many rows all tables have."""
    counts = [select(func.count().label("rows")).select_from(table) for table in LASTING]
    return int(connection.execute(select(func.sum(union_all(*counts).subquery().c.rows))).scalar_one())


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one state of the database, whatever others write."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # sqlite3 begins no transaction to read
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def _at_a_time(table: Table) -> int:
    return 1 if any(isinstance(column.type, LargeBinary) for column in table.columns) else SMALL_ROWS


def _must_be_current(engine: Engine, name: str) -> None:
    found = revision(engine)
    if found != REVISION:
        raise StoreRefused(
            f"{name} is at revision {found}, and this version of lora knows {REVISION}; use the version that wrote it"
        )


def _read_only(path: Path) -> Engine:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True))


@contextmanager
def _using(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say in one line what could not be done, and why."""
    try:
        yield
    except DBAPIError as error:
        raise StoreRefused(f"{what}: {cause_of(error)}") from error
    except OSError as error:
        raise StoreRefused(f"{what}: {error.strerror}") from error


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
