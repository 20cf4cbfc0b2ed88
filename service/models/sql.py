"""A store in a database: a file of SQLite, or PostgreSQL."""

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, Engine, and_, create_engine, delete, event, make_url, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.sql import Executable

from service.errors import InsufficientStorage, StorageUnavailable
from service.models.store import Change, Drop, Row, StoreRefused
from service.models.tables import METADATA, PROGRESS, REVISION

INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
BUSY_SECONDS = 5
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1_000}")
FULL = ("disk is full", "could not extend file", "No space left on device")
# What one server holds for as long as it runs, so that a second one on the same database does not start.
ADVISORY_LOCK = 0x6C6F7261


class SqlStore:
    """Changes written through by one writer at a time.

    A transaction whose end is unknown is looked up: it took place if the number that it wrote is there. Where not even
    that can be known, nothing more is written until a restart has read what there is.

    Raises:
        StoreRefused: for a database that cannot be used, in one sentence.
    """

    durable = True

    def __init__(self, url: str) -> None:
        self.url = _url(url)
        self._lock = threading.Lock()
        self._unusable = ""  # why nothing more can be written
        self._held = _only_server_on(self.url)
        try:
            self._engine = _engine(self.url)
            self._alone = _alone(self._engine)
            _migrate(self._engine, self.url)
            with self._engine.connect() as connection:
                self._writes: int = connection.execute(select(PROGRESS.c.writes)).scalar_one()
        except DBAPIError as error:
            self.close()
            raise StoreRefused(f"the database {self.name} cannot be used: {_cause(error)}") from error
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    def write(self, *changes: Iterable[Change]) -> None:
        """Write all of the changes or none; when it returns they are on the disk.

        Raises:
            InsufficientStorage, StorageUnavailable: when nothing was written.
        """
        statements = [self._statement(change) for change in chain.from_iterable(changes)]
        if not statements:  # a transaction of none would wait for the disk all the same
            return
        with self._lock:
            if self._unusable:
                raise StorageUnavailable(self._unusable)
            number = self._writes + 1
            try:
                with self._engine.begin() as connection:
                    for statement in statements:
                        connection.execute(statement)
                    connection.execute(update(PROGRESS).values(writes=number))
            except DBAPIError as error:
                if not self._took(number):
                    raise _refusal(error) from error
            self._writes = number

    def rows(self, table: str, *columns: str, **where: Any) -> Iterator[Row]:
        """Some columns of the rows with these values, in the order of their keys.

        Raises:
            StorageUnavailable
        """
        source = METADATA.tables[table]
        query = select(*(source.c[name] for name in columns)).order_by(*source.primary_key.columns)
        query = query.where(*(source.c[name] == value for name, value in where.items()))
        try:
            with (
                self._engine.connect() as connection,
                connection.execution_options(yield_per=1_000).execute(query) as result,
            ):
                for row in result.mappings():
                    yield {**row}
        except DBAPIError as error:
            raise _refusal(error) from error

    def close(self) -> None:
        """Let go of the database, so that another server may have it, once a write under way is over."""
        with self._lock:
            self._unusable = self._unusable or "the service is shutting down"
        if hasattr(self, "_alone"):
            self._alone.close()
        if hasattr(self, "_engine"):
            self._engine.dispose()
        if self._held is not None:
            self._held.close()

    def _statement(self, change: Change) -> Executable:
        table = METADATA.tables[change.table]
        if isinstance(change, Drop):
            return delete(table).where(and_(True, *(table.c[name] == value for name, value in change.where.items())))
        key = [column.name for column in table.primary_key]
        insert = INSERT[self._engine.dialect.name](table).values(**change.columns)
        others = {name: insert.excluded[name] for name in change.columns if name not in key}
        upsert: Executable = (
            insert.on_conflict_do_update(index_elements=key, set_=others) if others else insert.on_conflict_do_nothing()
        )
        return upsert

    def _took(self, number: int) -> bool:
        """Whether the transaction that wrote this number took place."""
        try:
            with self._engine.connect() as connection:
                return bool(connection.execute(select(PROGRESS.c.writes)).scalar_one() == number)
        except DBAPIError as error:
            self._unusable = "since a write broke it is not known what was stored; restart the service"
            raise _refusal(error) from error


def _url(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        raise StoreRefused(f"{text!r} is no URL of a database, such as sqlite:///lora.db") from None
    if url.get_backend_name() not in INSERT:
        raise StoreRefused(f"{url.get_backend_name()} is not known here; use sqlite:///… or postgresql+psycopg://…")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreRefused("a database in memory keeps nothing; name a file, such as sqlite:///lora.db")
    return url


def _only_server_on(url: URL) -> IO[str] | None:
    """A lock on a file beside the database, for as long as it is open."""
    if url.get_backend_name() != "sqlite":
        return None
    path = Path(f"{url.database}.lock")
    try:
        held = path.open("a")
    except OSError as error:
        raise StoreRefused(f"the database {url.database} cannot be used: {path}: {error.strerror}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.close()
        raise StoreRefused(f"another server uses the database {url.database}; stop it first") from None
    return held


def _engine(url: URL) -> Engine:
    try:
        engine = create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
    except (NoSuchModuleError, ModuleNotFoundError) as missing:
        raise StoreRefused(
            f"{missing}; install lora-service[postgresql], and begin the URL with postgresql+psycopg"
        ) from None
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, record: Any) -> None:
            for pragma in SQLITE_PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")

    return engine


def _alone(engine: Engine) -> Connection:
    """A connection that holds PostgreSQL's lock of the one server; of SQLite, one that has nothing to hold."""
    connection = engine.connect()
    if engine.dialect.name == "postgresql":
        got = connection.execute(text(f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})")).scalar_one()
        connection.commit()
        if not got:
            connection.close()
            raise StoreRefused("another server uses this database; stop it first")
    else:
        connection.rollback()
    return connection


def _migrate(engine: Engine, url: URL) -> None:
    """Bring the database to the newest revision; one that is there needs no library for it."""
    if _revision(engine) == REVISION:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"engine": engine})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        command.upgrade(config, REVISION)
    except CommandError:
        raise StoreRefused(
            f"the database is at revision {_revision(engine)}, which this version does not know; "
            "it was written by a newer one, so run that"
        ) from None


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _refusal(error: DBAPIError) -> InsufficientStorage | StorageUnavailable:
    cause = _cause(error)
    if any(words in cause for words in FULL):
        return InsufficientStorage(f"nothing was stored: {cause}; free some space on the disk of the database")
    return StorageUnavailable(f"nothing was stored: {cause}")


def _cause(error: DBAPIError) -> str:
    return str(error.orig).strip().partition(os.linesep)[0][:120]
