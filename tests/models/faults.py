"""What may befall the database of a store while a server uses it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

from sqlalchemy import event

from service.models.sql import SqlStore

BUSY_MILLISECONDS = 20


@contextmanager
def broken_commit(store: SqlStore, at: int = 1, *, took: bool, known: bool = True) -> Iterator[None]:
    """One commit, counted from 1, that ends in an error.

    Args:
        took: whether the transaction takes place all the same.
        known: whether it can be looked up then.
    """
    dialect, commits, unreadable = store._engine.dialect, count(1), []
    commit, execute = dialect.do_commit, dialect.do_execute

    def do_commit(connection: Any) -> None:
        breaks = next(commits) == at
        if took or not breaks:
            commit(connection)
        if breaks:
            unreadable.extend([True] * (not known))
            raise sqlite3.OperationalError("disk I/O error")

    def do_execute(*arguments: Any) -> None:
        if unreadable:
            unreadable.pop()
            raise sqlite3.OperationalError("disk I/O error")
        execute(*arguments)

    with _instead(dialect, do_commit=do_commit, do_execute=do_execute):
        yield


@contextmanager
def counted_commits(store: SqlStore) -> Iterator[list[int]]:
    """No fault: the numbers of the commits that there were."""
    dialect, commits = store._engine.dialect, []
    commit = dialect.do_commit

    def do_commit(connection: Any) -> None:
        commit(connection)
        commits.append(len(commits) + 1)

    with _instead(dialect, do_commit=do_commit):
        yield commits


@contextmanager
def full_disk(store: SqlStore) -> Iterator[None]:
    """A database that gets no page more than it has."""
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        most = connection.exec_driver_sql("PRAGMA max_page_count").scalar()
    with _pragma(store, "max_page_count", pages, most):
        yield


@contextmanager
def read_only(store: SqlStore) -> Iterator[None]:
    """A database that may be read alone."""
    with _pragma(store, "query_only", "ON", "OFF"):
        yield


@contextmanager
def locked(store: SqlStore) -> Iterator[None]:
    """A database that somebody else writes to, for longer than is waited for."""
    with store._engine.connect() as connection:
        patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    with (
        _pragma(store, "busy_timeout", BUSY_MILLISECONDS, patience),
        closing(sqlite3.connect(store.url.database, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def _pragma(store: SqlStore, name: str, value: object, usual: object) -> Iterator[None]:
    """Every connection that the store uses has this value; after that, the usual one."""
    now = [value]

    def set_now(connection: Any, *of_pool: Any) -> None:
        connection.execute(f"PRAGMA {name}={now[0]}").fetchall()

    # It stays for as long as the store does: another thread may be in the midst of asking for a connection.
    event.listen(store._engine, "checkout", set_now)
    try:
        yield
    finally:
        now[0] = usual


@contextmanager
def _instead(thing: object, **methods: Any) -> Iterator[None]:
    """Other methods of one object."""
    vars(thing).update(methods)
    try:
        yield
    finally:
        for name in methods:
            delattr(thing, name)
