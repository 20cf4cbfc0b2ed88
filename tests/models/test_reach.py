"""A database is looked at without being changed."""

import sqlite3
from pathlib import Path

import pytest

from service.models.reach import reached
from service.models.sql import SqlStore
from service.models.store import StoreRefused


def test_one_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    assert "will be made; " in reached(f"sqlite:///{tmp_path}/lora.db")
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_there_is_told_by_its_revision(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lora.db"
    SqlStore(url).close()
    assert "is up to date; " in reached(url)
    with sqlite3.connect(tmp_path / "lora.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0000'")
    database.close()
    assert "is at revision 0000" in reached(url)


def test_one_that_a_server_uses_can_be_looked_at(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lora.db"
    store = SqlStore(url)
    assert "is up to date" in reached(url)
    store.close()


@pytest.mark.parametrize("url", ["sqlite:///nowhere/lora.db", "mysql://x", "postgresql+psycopg://a@127.0.0.1:9/b"])
def test_one_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(StoreRefused):
        reached(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lora.db").write_text("no database, whatever its name says" * 100)
    with pytest.raises(StoreRefused, match="cannot be used"):
        reached(f"sqlite:///{tmp_path}/lora.db")
