"""How a database is opened: a file of SQLite or PostgreSQL, by one server, at the newest revision."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from service.models.store import StoreRefused
from service.models.tables import REVISION

BACKENDS = ("sqlite", "postgresql")
BUSY_SECONDS = 5
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1_000}")
# What one server holds for as long as it runs, so that a second one on the same database does not start.
ADVISORY_LOCK = 0x6C6F7261


def url_of(text: str) -> URL:
    """The URL of a database that there can be.

    Raises:
        StoreRefused
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise StoreRefused(f"{text!r} is no URL of a database, such as sqlite:///lora.db") from None
    if url.get_backend_name() not in BACKENDS:
        raise StoreRefused(f"{url.get_backend_name()} is not known here; use sqlite:///… or postgresql+psycopg://…")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreRefused("a database in memory keeps nothing; name a file, such as sqlite:///lora.db")
    return url


@contextmanager
def opened(url: URL) -> Iterator[Engine]:
    """The engine on a database that is at the newest revision, and that no other server has meanwhile.

    Raises:
        StoreRefused: in one sentence.
    """
    with ExitStack() as stack:
        if url.get_backend_name() == "sqlite":
            stack.enter_context(_locked(Path(f"{url.database}.lock"), url))
            with suppress(OSError):  # there already, or nowhere, as the connection will say
                Path(str(url.database)).touch(mode=0o600, exist_ok=False)  # it holds all weights and replies
        engine = engine_on(url)
        stack.callback(engine.dispose)
        try:
            if engine.dialect.name == "postgresql":
                stack.enter_context(_alone_on(engine))
            migrate(engine)
        except DBAPIError as error:
            raise StoreRefused(f"the database {shown(url)} cannot be used: {cause_of(error)}") from error
        yield engine


def shown(url: URL) -> str:
    """The URL without its password."""
    return url.render_as_string(hide_password=True)


def engine_on(url: URL) -> Engine:
    """The engine that connects to a database, which need not be there yet.

    Raises:
        StoreRefused: without the driver.
    """
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


def migrate(engine: Engine) -> None:
    """Bring the database to the newest revision; one that is there needs no library for it.

    Raises:
        StoreRefused: for one of a newer version.
    """
    if revision(engine) == REVISION:
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
            f"the database is at revision {revision(engine)}, which this version does not know; "
            "it was written by a newer one, so run that"
        ) from None


def revision(engine: Engine) -> str | None:
    """The revision that a database is at; None for an empty one."""
    with engine.connect() as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def cause_of(error: DBAPIError) -> str:
    """What the database said, in one line."""
    return str(error.orig).strip().partition(os.linesep)[0][:120]


def _locked(path: Path, url: URL) -> IO[str]:
    """A lock on a file beside the database, for as long as it is open."""
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


def _alone_on(engine: Engine) -> Connection:
    """A connection that holds the lock of the one server."""
    connection = engine.connect()
    got = connection.execute(text(f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})")).scalar_one()
    connection.commit()
    if not got:
        connection.close()
        raise StoreRefused("another server uses this database; stop it first")
    return connection
