"""A backup holds all that there was at one moment, and can be restored to either kind of database."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.models.backup import backup, restore
from service.models.sql import SqlStore
from service.models.store import Put, StoreRefused
from service.models.tables import LASTING
from tests.postgres import postgres


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def base(name: str) -> Put:
    return Put("bases", {"id": name, "nbytes": 5, "tensors": name.encode() * 5})


def model(name: str, on: str) -> Put:
    return Put("models", {"id": name, "base_id": on, "facts": "{}"})


def fill(store: SqlStore) -> None:
    """Something in every table."""
    version = {"model_id": "m", "number": 0, "facts": "{}", "tensors": bytes(range(256))}
    store.write([base("b"), model("m", "b"), Put("versions", version)])
    job = {"id": "j", "model_id": "m", "given_id": "g", "ended": False, "facts": '{"ñ": 1}', "curves": b""}
    store.write([Put("given", {"id": "g", "tensors": b"g"}), Put("jobs", job)])
    store.write([Put("states", {"job_id": "j", "facts": "{}", "tensors": b"s"})])
    upload = {"dataset_id": "d", "number": 1, "facts": "{}", "tensors": b"u"}
    store.write([Put("datasets", {"id": "d", "facts": "{}"}), Put("uploads", upload)])
    reply = {"key": "k", "created_at": "now", "facts": "{}", "body": b"r"}
    store.write([Put("sweeps", {"id": "s", "facts": "{}"}), Put("replies", reply)])


def contents(store: SqlStore) -> dict[str, list[Any]]:
    return {table.name: list(store.rows(table.name, *(column.name for column in table.columns))) for table in LASTING}


@contextmanager
def opened(url: str) -> Iterator[SqlStore]:
    with closing(SqlStore(url)) as store:
        yield store


def test_a_backup_of_a_database_in_use_is_restored_to_another_one(tmp_path):
    told: list[tuple[int, int]] = []
    with opened(url_of(tmp_path / "a.db")) as store:
        fill(store)
        backup(url_of(tmp_path / "a.db"), tmp_path / "copy", lambda *rows: told.append(rows))
        before = contents(store)
        store.write([base("later")])
    assert all(before.values())
    assert told[-1] == (11, 11)
    restore(tmp_path / "copy", url_of(tmp_path / "b.db"))
    with opened(url_of(tmp_path / "b.db")) as store:
        assert contents(store) == before
        store.write([base("more")])
    restore(tmp_path / "copy", url_of(tmp_path / "c.db"))  # a backup is not changed by its use
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy"]


def test_a_backup_goes_from_sqlite_to_postgresql_and_back(tmp_path):
    with postgres(tmp_path) as url:
        with opened(url_of(tmp_path / "a.db")) as store:
            fill(store)
            before = contents(store)
        backup(url_of(tmp_path / "a.db"), tmp_path / "one")
        restore(tmp_path / "one", url)
        with opened(url) as store:
            assert contents(store) == before
            backup(url, tmp_path / "two")
    restore(tmp_path / "two", url_of(tmp_path / "b.db"))
    with opened(url_of(tmp_path / "b.db")) as store:
        assert contents(store) == before


def test_a_backup_holds_one_moment_though_a_server_writes_all_the_time(tmp_path):
    over = threading.Event()
    with opened(url_of(tmp_path / "a.db")) as store:

        def write() -> None:
            number = 0
            while not over.is_set():
                store.write([base(f"b{number}"), model(f"m{number}", f"b{number}")])
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(10):
                backup(url_of(tmp_path / "a.db"), tmp_path / f"copy{number}")
        finally:
            over.set()
            writer.join()
    for number in range(10):
        with closing(sqlite3.connect(tmp_path / f"copy{number}")) as copy:
            assert copy.execute("PRAGMA foreign_key_check").fetchall() == []
            (bases,), (models,), (writes,) = (
                copy.execute(f"SELECT {what}").fetchone()
                for what in ("count(*) FROM bases", "count(*) FROM models", "writes FROM progress")
            )
            assert bases == models == writes


def test_what_cannot_be_backed_up_is_refused_and_nothing_left_behind(tmp_path):
    there = url_of(tmp_path / "a.db")
    with pytest.raises(StoreRefused, match=r"there is no database .*a\.db"):
        backup(there, tmp_path / "copy")
    assert not (tmp_path / "a.db").exists()
    SqlStore(there).close()
    (tmp_path / "taken").touch()
    for path, says in (("taken", "is there already"), ("no/copy", "cannot be backed up")):
        with pytest.raises(StoreRefused, match=says):
            backup(there, tmp_path / path)
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreRefused, match="is at revision None"):
        backup(url_of(tmp_path / "empty.db"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_cannot_be_restored_is_refused_and_changes_nothing(tmp_path):
    with opened(url_of(tmp_path / "a.db")) as store:
        fill(store)
        before = contents(store)
        backup(url_of(tmp_path / "a.db"), tmp_path / "copy")
        with pytest.raises(StoreRefused, match="another server uses"):
            restore(tmp_path / "copy", url_of(tmp_path / "a.db"))
    with pytest.raises(StoreRefused, match="is not empty"):
        restore(tmp_path / "copy", url_of(tmp_path / "a.db"))
    with opened(url_of(tmp_path / "a.db")) as store:
        assert contents(store) == before
    (tmp_path / "junk").write_bytes(b"junk" * 1_000)
    for name, says in (("nothing", "there is no file"), ("junk", "file is not a database")):
        with pytest.raises(StoreRefused, match=says):
            restore(tmp_path / name, url_of(tmp_path / "b.db"))
    with sqlite3.connect(tmp_path / "copy") as copy:
        copy.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreRefused, match="is at revision 9999"):
        restore(tmp_path / "copy", url_of(tmp_path / "b.db"))
    assert not (tmp_path / "b.db").exists()


def test_a_backup_is_for_its_owner_alone_whatever_it_is_called(tmp_path):
    with opened(url_of(tmp_path / "a.db")) as store:
        fill(store)
    path = tmp_path / "mon?day{1}%41.db"
    backup(url_of(tmp_path / "a.db"), path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.db", tmp_path / "a.db.lock", path])
    restore(path, url_of(tmp_path / "b.db"))


def test_a_backup_that_breaks_leaves_nothing_behind_and_one_that_is_late_takes_no_place(tmp_path):
    there = url_of(tmp_path / "a.db")
    with opened(there) as store:
        fill(store)

    def leaves(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(there, tmp_path / "copy", leaves)
    assert [path.name for path in tmp_path.glob("*copy*")] == []

    def other(done: int, total: int) -> None:
        if done == total:
            backup(there, tmp_path / "copy")

    with pytest.raises(StoreRefused, match="is there already"):
        backup(there, tmp_path / "copy", other)
    restore(tmp_path / "copy", url_of(tmp_path / "b.db"))
    assert [path.name for path in tmp_path.glob("*copy*")] == ["copy"]
