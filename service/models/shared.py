"""A store that several servers share: PostgreSQL, to which they write in turn, each learning what the others wrote."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from uuid import uuid4

import orjson
from sqlalchemy import Connection, Executable, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from service.errors import StorageUnavailable
from service.models.leases import LEASE_SECONDS, Leases
from service.models.sql import SqlStore, refusal
from service.models.store import Change, Claim, ClaimLost, Drop, News, Put
from service.models.tables import CHANGES, LEASES, METADATA, PROGRESS

# What servers keep in memory, and hence need to know of; of the other tables they read the rows that they need.
KNOWN = {"bases", "models", "jobs", "epochs", "datasets", "sweeps", "replies"}
KEPT_CHANGES = 10_000  # transactions that a server may be behind before it looks at everything
CHANNEL = "lora"
BEAT_SECONDS = 1.0  # between two looks, should a notification be lost

log = logging.getLogger(__name__)


class SharedStore(SqlStore):
    """Transactions are numbered one after another, and each says what it changed.

    In a turn a server holds the row with the number, so nobody else writes, and has learnt all up to it. Outside of
    turns a thread listens for what others wrote.

    Raises:
        StoreRefused
    """

    shared = True

    def __init__(self, url: str, lease_seconds: float = LEASE_SECONDS) -> None:
        super().__init__(url)
        self.server = uuid4().hex
        self.leases = Leases(self._engine, self.server, lease_seconds)
        self.checked_at = time.monotonic()  # when the database was last asked, and answered
        self._learn: Callable[[News], None] = lambda news: None
        self._here = threading.local()  # the connection through which a thread reads
        self._turn: Connection | None = None
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="lora-listener", daemon=True)

    @property
    def silent_seconds(self) -> float:
        """How long the database has not answered, by which what others wrote of late may be unknown."""
        return time.monotonic() - self.checked_at

    def follow(self, learn: Callable[[News], None]) -> None:
        """Tell of what others write from now on: in each turn, and soon after they did."""
        self._learn = learn
        self._listener.start()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else writes until it is over, and all that others wrote is known; it may be taken within a turn.

        Raises:
            StorageUnavailable
        """
        with self._lock:
            if self._turn is not None:
                yield
                return
            with self._begun() as connection:
                self._turn = connection
                try:
                    with self._reading(connection):
                        yield
                finally:
                    self._turn = None

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All rows that this thread reads meanwhile are those of one moment, from which on `catch_up` learns."""
        with self._lock, self._asking(), self._snapshot() as connection:
            self._writes = _number(connection)
            with self._reading(connection):
                yield

    def catch_up(self) -> None:
        """Learn what others wrote up to now.

        Raises:
            StorageUnavailable
        """
        with self._lock:
            if self._turn is None:
                with self._asking(), self._snapshot() as connection:
                    self._learn_up_to(_number(connection), connection)

    def try_again(self) -> None:
        """Ask whether the trouble is over."""
        with suppress(StorageUnavailable):
            self.catch_up()

    def close(self) -> None:
        """Let go of the database, once a write under way is over."""
        self._closing.set()
        if self._listener.ident is not None:
            self._listener.join(2 * BEAT_SECONDS)
        super().close()

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """A transaction in which nobody else writes."""
        with self._asking():
            connection = self._engine.connect()
        with connection:
            with self._asking():
                number = connection.execute(select(PROGRESS.c.writes).with_for_update()).scalar_one()
                self._learn_up_to(number, connection)
            yield connection

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Whether the database answers is known afterwards."""
        if self._unusable:
            raise StorageUnavailable(self._unusable)
        try:
            yield
        except DBAPIError as error:
            refused = refusal(error, "the database cannot be asked")
            self.trouble = refused.detail
            raise refused from error
        self.checked_at, self.trouble = time.monotonic(), ""

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def _reading(self, connection: Connection) -> Iterator[None]:
        """What this thread reads meanwhile, it reads through this connection."""
        before, self._here.connection = getattr(self._here, "connection", None), connection
        try:
            yield
        finally:
            self._here.connection = before

    def _connected(self) -> AbstractContextManager[Connection]:
        connection = getattr(self._here, "connection", None)
        return self._engine.connect() if connection is None else nullcontext(connection)

    def _learn_up_to(self, number: int, connection: Connection) -> None:
        """Tell what has changed up to a transaction, which the connection has before it."""
        if number == self._writes:
            return
        since = select(CHANGES.c.changed).where(CHANGES.c.number > self._writes)
        found = connection.execute(since).scalars().all()
        if len(found) < number - self._writes:  # some are kept no longer
            news = News({name: _keys(connection, name) for name in KNOWN}, everything=True)
        else:
            news = News(_together(orjson.loads(keys) for keys in found))
        with self._reading(connection):
            self._learn(news)
        self._writes = number

    def _write(self, statements: Sequence[Executable]) -> None:
        raise AssertionError("a shared store is told of changes, by `write`")

    def write(self, *changes: Iterable[Change]) -> None:
        """Write all of the changes or none; when it returns they are on the disk of the database.

        Raises:
            ClaimLost: when another server has a job meanwhile.
            InsufficientStorage, StorageUnavailable: when nothing was written.
        """
        with self.turn():
            assert self._turn is not None, "this is one"
            told = [change for of in changes for change in of]
            if not told:
                return
            number = self._writes + 1
            try:
                for change in told:
                    self._tell(change, self._turn)
                self._number(number, told, self._turn)
                self._turn.commit()
            except DBAPIError as error:
                with suppress(DBAPIError):
                    self._turn.rollback()
                if not self._took(number):
                    raise self._refused(error) from error
            except BaseException:
                self._turn.rollback()
                raise
            self._writes, self.trouble = number, ""

    def _tell(self, change: Change, connection: Connection) -> None:
        if isinstance(change, Claim):
            mine = {"job_id": change.job_id, "server": self.server, "fence": change.fence}
            held = select(LEASES).where(*(LEASES.c[name] == value for name, value in mine.items()))
            if connection.execute(held).first() is None:
                raise ClaimLost(change.job_id)
            return
        connection.execute(self._statement(change))
        if isinstance(change, Put) and change.columns.get("ended"):
            for table in ("leases", "epochs"):
                connection.execute(self._statement(Drop(table, {"job_id": change.columns["id"]})))

    def _number(self, number: int, changes: Sequence[Change], connection: Connection) -> None:
        """Say in the transaction what it changes, and to whoever listens that there is something to learn.

        Raises:
            StorageUnavailable: when another server came between two writes of one turn.
        """
        keys = orjson.dumps(_keys_of(changes)).decode()
        next_one = update(PROGRESS).where(PROGRESS.c.writes == number - 1).values(writes=number)
        if not connection.execute(next_one).rowcount:
            raise StorageUnavailable("another server wrote meanwhile, so nothing was stored; try again")
        connection.execute(insert(CHANGES).values(number=number, server=self.server, changed=keys))
        if number % KEPT_CHANGES == 0:
            connection.execute(delete(CHANGES).where(CHANGES.c.number <= number - KEPT_CHANGES))
        connection.execute(select(func.pg_notify(CHANNEL, str(number))))

    def _took(self, number: int) -> bool:
        """Whether the transaction that was to write this number took place.

        Where that cannot be known, the next turn learns it as if another server had written it.
        """
        mine = select(CHANGES.c.number).where(CHANGES.c.number == number, CHANGES.c.server == self.server)
        try:
            with self._engine.connect() as connection:
                return connection.execute(mine).first() is not None
        except DBAPIError as error:
            raise self._refused(error) from error

    def _listen(self) -> None:
        """Learn what others write, as they do, until the store is closed; a connection that is lost is made again."""
        while not self._closing.is_set():
            try:
                with self._engine.connect() as connection:
                    connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(f"LISTEN {CHANNEL}"))
                    heard = connection.connection.driver_connection
                    assert heard is not None, "it has just been used"
                    self.catch_up()
                    while not self._closing.is_set():
                        told = next(heard.notifies(timeout=BEAT_SECONDS, stop_after=1), None)
                        if told is None or int(told.payload) > self._writes:  # else it was this server
                            self.catch_up()
                        self.checked_at = time.monotonic()
            except (DBAPIError, StorageUnavailable, OSError) as error:
                if not self._closing.is_set():
                    log.warning("the database cannot be listened to: %s", error)
                    self._closing.wait(BEAT_SECONDS)
            except Exception:
                log.exception("what other servers wrote could not be learnt")
                self._closing.wait(BEAT_SECONDS)


def _number(connection: Connection) -> int:
    return int(connection.execute(select(PROGRESS.c.writes)).scalar_one())


def _keys(connection: Connection, name: str) -> list[str]:
    """The keys of all rows of a table, by which it is known."""
    key = next(iter(METADATA.tables[name].primary_key))
    return list(connection.execute(select(key).distinct()).scalars())


def _keys_of(changes: Iterable[Change]) -> dict[str, list[str]]:
    """What servers need to know of: the keys of the rows that are other now, by table."""
    return _listed(
        (change.table, next(iter(row.values())))
        for change in changes
        if isinstance(change, Put | Drop) and change.table in KNOWN
        for row in [change.columns if isinstance(change, Put) else change.where]
    )


def _together(several: Iterable[dict[str, Collection[str]]]) -> dict[str, list[str]]:
    return _listed((table, key) for keys in several for table, of in keys.items() for key in of)


def _listed(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    listed: dict[str, dict[str, None]] = {}
    for table, key in pairs:
        listed.setdefault(table, {})[key] = None
    return {table: [*keys] for table, keys in listed.items()}
