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
STALLED_SECONDS = 30  # after which a transaction is given up in which its server does nothing
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1_000}")
POSTGRESQL_SETTINGS = (
    f"SET lock_timeout = '{BUSY_SECONDS}s'",
    f"SET idle_in_transaction_session_timeout = '{STALLED_SECONDS}s'",
)
# What servers of PostgreSQL hold for as long as they run, each with the others; a restore has it for itself. Versions
# before there could be several had it for themselves too.
ADVISORY_LOCK = 0x6C6F7261
MIGRATION_LOCK = 0x6C6F7262


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
def opened(url: URL, *, alone: bool = True) -> Iterator[Engine]:
    """The engine on a database that is at the newest revision, and that meanwhile no other server has.

    Args:
        alone: False where others may have it too, as they may PostgreSQL.

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
                stack.enter_context(_holding(engine, "" if alone else "_shared"))
                with engine.connect() as connection:  # one after another; the lock goes with the transaction
                    connection.execute(
                        text("SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
                    )
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
                    migrate(engine)
            else:
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
    sqlite = url.get_backend_name() == "sqlite"
    waits = {"connect_timeout": BUSY_SECONDS, "tcp_user_timeout": BUSY_SECONDS * 1_000}
    arguments = {} if sqlite else {name: value for name, value in waits.items() if name not in url.query}
    try:
        engine = create_engine(url, pool_pre_ping=not sqlite, connect_args=arguments)
    except (NoSuchModuleError, ModuleNotFoundError) as missing:
        raise StoreRefused(
            f"{missing}; `pip install '.[postgresql]'` in the folder of the service brings the driver of a URL that "
            "begins with postgresql+psycopg"
        ) from None
    statements = [f"PRAGMA {pragma}" for pragma in SQLITE_PRAGMAS] if sqlite else POSTGRESQL_SETTINGS

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        for statement in statements:
            connection.execute(statement)
        connection.commit()

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


def _holding(engine: Engine, how: str) -> Connection:
    """A connection that holds the lock of the servers."""
    connection = engine.connect()
    got = connection.execute(text(f"SELECT pg_try_advisory_lock{how}({ADVISORY_LOCK})")).scalar_one()
    connection.commit()
    if not got:
        connection.close()
        raise StoreRefused("another server uses this database; stop it first")
    return connection
