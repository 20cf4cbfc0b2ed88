"""The store in a database: all or nothing, on the disk, and for one server at a time."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from service.errors import InsufficientStorage, StorageUnavailable
from service.models.sql import SqlStore
from service.models.store import Drop, MemoryOnly, Put, StoreRefused
from service.models.tables import METADATA, REVISION
from tests.models.faults import broken_commit, full_disk, locked, read_only


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.db"


def opened(path: Path) -> SqlStore:
    return SqlStore(f"sqlite:///{path}")


def sweep(number: int, facts: str = "{}") -> Put:
    return Put("sweeps", {"id": f"swp_{number}", "facts": facts})


def kept(store: SqlStore) -> list[tuple[str, str]]:
    return [(row["id"], row["facts"]) for row in store.rows("sweeps", "id", "facts")]


def test_what_was_written_is_there_after_a_restart(path):
    store = opened(path)
    store.write([sweep(2), sweep(1)])
    store.write([sweep(2, "[]"), Put("bases", {"id": "base_1", "nbytes": 3, "tensors": b"\x00\xff"})])
    store.close()
    again = opened(path)
    assert kept(again) == [("swp_1", "{}"), ("swp_2", "[]")]
    assert list(again.rows("bases", "tensors", id="base_1")) == [{"tensors": b"\x00\xff"}]
    again.write([Drop("sweeps", {"id": "swp_1"})])
    assert kept(again) == [("swp_2", "[]")]
    again.close()


def test_a_put_leaves_the_columns_that_it_does_not_name(path):
    store = opened(path)
    store.write([Put("bases", {"id": "b", "nbytes": 3, "tensors": b"x"})])
    store.write([Put("bases", {"id": "b", "nbytes": 4, "tensors": b"x"})])
    assert list(store.rows("bases", "nbytes", "tensors")) == [{"nbytes": 4, "tensors": b"x"}]
    store.close()


ORPHAN = Put("versions", {"model_id": "no such model", "number": 0, "facts": "{}", "tensors": b""})


def test_changes_are_written_together_or_not_at_all(path):
    store = opened(path)
    with pytest.raises(StorageUnavailable):
        store.write([sweep(1), ORPHAN])
    assert kept(store) == []
    store.write([sweep(2)])
    assert kept(store) == [("swp_2", "{}")]
    store.close()


def test_writes_are_synced_to_the_disk(path):
    store = opened(path)
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    store.close()


def test_a_locked_database_takes_no_write_and_then_does(path):
    store = opened(path)
    with locked(store), pytest.raises(StorageUnavailable, match="locked") as refused:
        store.write([sweep(1)])
    assert refused.value.retryable
    store.write([sweep(1)])
    assert kept(store) == [("swp_1", "{}")]
    store.close()


def test_a_database_that_may_only_be_read_takes_no_write_and_then_does(path):
    store = opened(path)
    with read_only(store), pytest.raises(StorageUnavailable, match="readonly"):
        store.write([sweep(1)])
    store.write([sweep(2)])
    assert kept(store) == [("swp_2", "{}")]
    store.close()


def test_a_full_disk_is_said_and_leaves_the_old_state(path):
    store = opened(path)
    with full_disk(store), pytest.raises(InsufficientStorage, match="disk is full"):
        store.write([Put("bases", {"id": "b", "nbytes": 1, "tensors": bytes(10**6)})])
    assert list(store.rows("bases", "id")) == []
    store.write([sweep(1)])
    store.close()


def test_a_second_server_on_one_file_is_refused(path):
    store = opened(path)
    code = f"from service.models.sql import SqlStore; SqlStore('sqlite:///{path}')"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"another server uses the database {path}" in second.stderr
    store.close()
    opened(path).close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "is no URL of a database"),
        ("mysql://x/y", "mysql is not known here"),
        ("sqlite://", "keeps nothing"),
        ("sqlite:///:memory:", "keeps nothing"),
        ("sqlite:////no/such/folder/lora.db", "No such file or directory"),
    ],
)
def test_what_is_no_usable_database_is_refused_in_one_sentence(url, says):
    with pytest.raises(StoreRefused, match=says):
        SqlStore(url)


def test_a_damaged_file_is_refused_and_left_as_it_is(path):
    path.write_bytes(b"this is no database" * 1_000)
    before = path.read_bytes()
    with pytest.raises(StoreRefused, match="file is not a database"):
        opened(path)
    assert path.read_bytes() == before
    with pytest.raises(StoreRefused, match="file is not a database"):  # and nothing holds it
        opened(path)


def test_a_newer_database_is_refused_and_left_as_it_is(path):
    opened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreRefused, match="revision 9999, which this version does not know"):
        opened(path)


def test_the_migrations_make_the_tables_that_the_code_knows(path):
    opened(path).close()
    made = inspect(create_engine(f"sqlite:///{path}"))
    assert set(made.get_table_names()) == {*METADATA.tables, "alembic_version"}
    for name, table in METADATA.tables.items():
        columns = {column["name"]: (str(column["type"]), column["nullable"]) for column in made.get_columns(name)}
        assert columns == {column.name: (str(column.type.compile(made.dialect)), column.nullable) for column in table.c}
    script = Config()
    script.set_main_option("script_location", "service/models/migrations")
    assert ScriptDirectory.from_config(script).get_heads() == [REVISION]


def test_a_database_that_is_up_to_date_is_opened_without_the_library_of_migrations(path):
    opened(path).close()
    code = f"import sys; from service.models.sql import SqlStore; SqlStore('sqlite:///{path}').close(); "
    code += "print('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("took", [True, False])
def test_a_transaction_whose_end_was_not_told_is_looked_up(path, took):
    store = opened(path)
    with broken_commit(store, took=took):
        if took:
            store.write([sweep(1)])
        else:
            with pytest.raises(StorageUnavailable, match="disk I/O error"):
                store.write([sweep(1)])
    assert kept(store) == [("swp_1", "{}")] * took
    store.close()


@pytest.mark.parametrize("took", [True, False])
def test_after_a_transaction_of_which_nothing_is_known_nothing_is_written_until_a_restart(path, took):
    store = opened(path)
    with broken_commit(store, took=took, known=False), pytest.raises(StorageUnavailable):
        store.write([sweep(1)])
    with pytest.raises(StorageUnavailable, match="restart the service"):
        store.write([sweep(2)])
    store.close()
    again = opened(path)
    again.write([sweep(3)])
    assert [name for name, _ in kept(again)] == ["swp_1"] * took + ["swp_3"]
    again.close()


def test_postgresql_keeps_what_sqlite_does(database):
    store = SqlStore(database)
    store.write([sweep(2), sweep(1), Put("bases", {"id": "b", "nbytes": 3, "tensors": b"\x00\xff"})])
    with pytest.raises(StorageUnavailable):
        store.write([sweep(3), ORPHAN])
    store.write([sweep(2, "[]"), Drop("sweeps", {"id": "swp_1"})])
    with pytest.raises(StoreRefused, match="another server uses this database"):
        SqlStore(database)
    store.close()
    again = SqlStore(database)
    assert kept(again) == [("swp_2", "[]")]
    assert list(again.rows("bases", "nbytes", "tensors")) == [{"nbytes": 3, "tensors": b"\x00\xff"}]
    again.close()


def test_no_password_is_shown(database):
    with pytest.raises(StoreRefused) as refused:
        SqlStore("postgresql+psycopg://lora:secret@127.0.0.1:1/lora")
    assert "secret" not in str(refused.value)


def test_memory_alone_keeps_nothing():
    store = MemoryOnly()
    store.write([sweep(1)])
    assert list(store.rows("sweeps", "id")) == []
    assert not store.durable
    store.close()


def test_only_its_owner_may_read_a_new_database(path):
    store = opened(path)
    store.write([sweep(1)])
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.glob("lora.db*") if each.suffix != ".lock"}
    assert set(modes.values()) == {0o600}
    assert "lora.db-wal" in modes
    store.close()
