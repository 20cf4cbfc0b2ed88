"""A store in a database: a file of SQLite, or PostgreSQL."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.sql import Executable

from service.errors import InsufficientStorage, StorageUnavailable
from service.models.database import cause_of, opened, shown, url_of
from service.models.store import Alone, Change, Claim, Drop, Row, StoreRefused
from service.models.tables import METADATA, PROGRESS

INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
AT_ONCE = 1_000  # keys that one query asks for
FULL = ("disk is full", "could not extend file", "No space left on device")


class SqlStore(Alone):
    """Changes written through by one writer at a time.

    A transaction whose end is unknown is looked up: it took place if the number that it wrote is there. Where not even
    that can be known, nothing more is written until a restart has read what there is.

    Raises:
        StoreRefused: for a database that cannot be used, in one sentence.
    """

    durable = True

    def __init__(self, url: str) -> None:
        self.url = url_of(url)
        self._lock = threading.RLock()
        self._unusable = ""  # why nothing more can be written
        self.trouble = ""
        with ExitStack() as stack:
            self._engine = stack.enter_context(opened(self.url, alone=not self.shared))
            self._writes = _writes(self._engine)
            self._open = stack.pop_all()

    @property
    def name(self) -> str:
        """The URL without its password."""
        return shown(self.url)

    def write(self, *changes: Iterable[Change]) -> None:
        """Write all of the changes or none; when it returns they are on the disk.

        Raises:
            InsufficientStorage, StorageUnavailable: when nothing was written.
        """
        statements = [self._statement(change) for change in chain.from_iterable(changes)]
        if statements:  # a transaction of none would wait for the disk all the same
            self._write(statements)

    def try_again(self) -> None:
        """Write nothing, by which it is known whether the trouble is over.

        A full disk is no trouble of the kind: whoever needs room is told, and all else goes on.
        """
        with suppress(StorageUnavailable, InsufficientStorage):
            self._write([])

    def rows(self, table: str, *columns: str, **where: Any) -> Iterator[Row]:
        """Some columns of the rows with these values, or one of a list of values, in the order of their keys.

        Raises:
            StorageUnavailable
        """
        source = METADATA.tables[table]
        query = select(*(source.c[name] for name in columns)).order_by(*source.primary_key.columns)
        try:
            with self._connected() as connection:
                for some in _parts(where):
                    with connection.execute(
                        query.where(_with(source, some)), execution_options={"yield_per": 1_000}
                    ) as result:
                        for row in result.mappings():
                            yield {**row}
        except DBAPIError as error:
            raise refusal(error, "what is stored cannot be read") from error

    def close(self) -> None:
        """Let go of the database, so that another server may have it, once a write under way is over."""
        with self._lock:
            self._unusable = self._unusable or "the service is shutting down"
        self._open.close()

    def _write(self, statements: Sequence[Executable]) -> None:
        """One transaction, whose number is in it."""
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
                    raise self._refused(error) from error
            self._writes, self.trouble = number, ""

    def _connected(self) -> AbstractContextManager[Connection]:
        return self._engine.connect()

    def _refused(self, error: DBAPIError) -> InsufficientStorage | StorageUnavailable:
        """What is to be said of a write that did not take place."""
        refused = refusal(error, "nothing was stored")
        unanswered = isinstance(error, OperationalError) and isinstance(refused, StorageUnavailable)
        self.trouble = refused.detail if unanswered else ""
        return refused

    def _statement(self, change: Change) -> Executable:
        assert not isinstance(change, Claim), "who writes alone takes no claims"
        table = METADATA.tables[change.table]
        if isinstance(change, Drop):
            gone = delete(table).where(_with(table, change.where))
            return gone if change.needed is None else gone.where(~_exists(*change.needed))
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
            self.trouble = self._unusable = "since a write broke it is not known what was stored; restart the service"
            raise refusal(error, "it is not known whether this was stored") from error


def _with(table: Table, columns: Row) -> ColumnElement[bool]:
    """That a row has these columns, or of one for which there is a list, one of its values."""
    return and_(True, *(_is(table.c[name], value) for name, value in columns.items()))


def _is(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    return column.in_(value) if isinstance(value, list) else column == value


def _parts(where: Row) -> Iterator[Row]:
    """The conditions of queries none of which has more parameters than a database takes."""
    name = next((name for name, value in where.items() if isinstance(value, list)), None)
    if name is None:
        yield where
        return
    for first in range(0, len(where[name]), AT_ONCE):
        yield {**where, name: where[name][first : first + AT_ONCE]}


def _exists(name: str, columns: Row) -> ColumnElement[bool]:
    table = METADATA.tables[name]
    return select(table).where(_with(table, columns)).exists()


def _writes(engine: Engine) -> int:
    """How many transactions there have been.

    Raises:
        StoreRefused
    """
    try:
        with engine.connect() as connection:
            return int(connection.execute(select(PROGRESS.c.writes)).scalar_one())
    except DBAPIError as error:
        raise StoreRefused(f"the database {shown(engine.url)} cannot be used: {cause_of(error)}") from error


def refusal(error: DBAPIError, what: str) -> InsufficientStorage | StorageUnavailable:
    """What is to be said where a database did not do `what` it was asked for."""
    cause = cause_of(error)
    if any(words in cause for words in FULL):
        return InsufficientStorage(f"{what}: {cause}; free some space on the disk of the database")
    return StorageUnavailable(f"{what}: {cause}")
