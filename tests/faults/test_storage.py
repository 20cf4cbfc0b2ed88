"""A disk that is full, silent or torn (F3, F4, F5): what was acknowledged is there all the same."""

import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.app import create_engine
from service.models.sql import SqlStore
from service.models.store import Put, StoreRefused
from service.settings import SettingsError, load
from tests.models.faults import broken_commit, full_disk, read_only
from tests.running import Service, in_thread, nursery, until

SIZES = {"in_features": 64, "out_features": 64, "rank": 4}
LARGE = {"in_features": 1_024, "out_features": 1_024}  # more than is left free in a small file
LONG = {"epochs": 10_000, "batch_size": 20, "data": {"kind": "random", "n_samples": 2_000}}
SHORT = {"epochs": 100, "batch_size": 20, "data": {"kind": "random", "n_samples": 200}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.db"


@contextmanager
def durable(path: Path) -> Iterator[Service]:
    with in_thread(database_url=f"sqlite:///{path}", checkpoint_seconds=0.05) as service:
        service.wait_for_workers()
        yield service


def made(http: httpx.Client) -> str:
    answer = http.post("/models", json=SIZES)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def runs(http: httpx.Client, model: str) -> list[list[float]]:
    answer = http.post(f"/models/{model}/forward", json={"inputs": [[0.5] * 64]})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["outputs"])


def accepted(http: httpx.Client, model: str, plan: dict[str, Any]) -> str:
    answer = http.post(f"/models/{model}/train", json=plan)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["type"]).removeprefix("/problems/")


def test_a_full_disk_refuses_what_needs_room_while_jobs_end_and_forwards_go_on_and_room_is_found_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4."""
    monkeypatch.setattr("service.engine.run.RETRY_SECONDS", 0.05)
    with durable(path) as service:
        http = service.http
        model = made(http)
        job = accepted(http, model, SHORT)
        with full_disk(service.engine.store):  # type: ignore[arg-type]
            assert refused(http.post("/models", json=LARGE)) == (507, "insufficient-storage")
            assert [each["id"] for each in http.get("/models").json()["items"]] == [model]
            runs(http, model)
            assert http.get("/readyz").status_code == http.get("/livez").status_code == 200
            until(lambda: http.get(f"/jobs/{job}").json()["epoch"] > 0)
        assert http.post("/models", json=LARGE).status_code == 201
        until(lambda: http.get(f"/jobs/{job}").json()["state"] == "succeeded")
        assert http.get(f"/models/{model}").json()["version"] == 1


def test_a_volume_that_is_really_full_is_507_and_serves_on_once_there_is_room(tmp_path: Path) -> None:
    """F4, on a file system of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        with durable(disk / "lora.db") as service:
            http = service.http
            model = made(http)
            job = accepted(http, model, SHORT)
            filling = disk / "filling"
            filling.write_bytes(bytes(shutil.disk_usage(disk).free - 2**20))
            known = {model}
            answer = http.post("/models", json=LARGE)
            while answer.status_code == 201:
                known.add(answer.json()["id"])
                answer = http.post("/models", json=LARGE)
            assert refused(answer) == (507, "insufficient-storage")
            assert {each["id"] for each in http.get("/models").json()["items"]} == known
            runs(http, model)
            filling.unlink()
            known.add(http.post("/models", json=LARGE).json()["id"])
            until(lambda: http.get(f"/jobs/{job}").json()["state"] == "succeeded")
        with durable(disk / "lora.db") as service:
            assert {each["id"] for each in service.http.get("/models").json()["items"]} == known
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_database_that_is_locked_for_a_moment_is_waited_for_and_reads_do_not_wait(path: Path) -> None:
    """F5: nothing on the event loop waits for the disk."""
    with durable(path) as service, closing(sqlite3.connect(path, isolation_level=None)) as other:
        http = service.http
        model = made(http)
        job = accepted(http, model, LONG)
        until(lambda: http.get(f"/jobs/{job}").json()["epoch"] > 3)
        other.execute("BEGIN IMMEDIATE")
        answers: list[httpx.Response] = []

        def create() -> None:
            answers.append(httpx.post(f"{service.url}/models", json=SIZES, timeout=60))

        writes = [threading.Thread(target=create) for _ in range(4)]  # more than there are threads that write
        for write in writes:
            write.start()
        time.sleep(0.3)  # by which a checkpoint waits too
        reads = ("/livez", "/models", "/jobs", f"/jobs/{job}", "/sweeps", "/datasets", "/limits", "/metrics", "/events")
        slowest = 0.0
        for _ in range(3):
            for read in reads:
                at = time.perf_counter()
                with http.stream("GET", read) as answer:
                    assert answer.status_code == 200
                slowest = max(slowest, time.perf_counter() - at)
            runs(http, model)
        assert not answers
        assert slowest < 1
        other.execute("ROLLBACK")
        for write in writes:
            write.join()
        assert [answer.status_code for answer in answers] == [201] * 4
        http.post(f"/jobs/{job}/cancel")


def test_while_the_database_takes_no_write_the_service_is_not_ready_and_lives_and_reads_go_on(path: Path) -> None:
    """F5."""
    with durable(path) as service:
        http = service.http
        model = made(http)
        assert http.get("/readyz").status_code == 200
        with read_only(service.engine.store):  # type: ignore[arg-type]
            for answer in (http.post("/models", json=SIZES), http.post(f"/models/{model}/train")):
                assert refused(answer) == (503, "storage-unavailable")
                assert answer.headers["Retry-After"]
            ready = http.get("/readyz")
            assert refused(ready) == (503, "not-ready")
            assert "readonly" in ready.json()["storage"]
            assert http.get("/livez").status_code == 200
            runs(http, model)
            assert http.get("/jobs").json()["items"] == []
        assert http.get("/readyz").status_code == 200
        assert len(http.get("/models").json()["items"]) == 1
        made(http)


def test_after_a_sync_of_which_nothing_is_known_nothing_is_acknowledged_until_a_restart(path: Path) -> None:
    """F5: a failed fsync is never retried as if it had worked."""
    with durable(path) as service:
        http = service.http
        model = made(http)
        with broken_commit(service.engine.store, took=True, known=False):  # type: ignore[arg-type]
            lost = http.post("/models", json=SIZES)
        assert refused(lost) == (503, "storage-unavailable")
        for _ in range(2):
            assert refused(http.post("/models", json=SIZES)) == (503, "storage-unavailable")
            assert "restart" in http.get("/readyz").json()["storage"]
        runs(http, model)
        assert [each["id"] for each in http.get("/models").json()["items"]] == [model]
    with durable(path) as service:
        assert service.http.get("/readyz").status_code == 200
        assert model in [each["id"] for each in service.http.get("/models").json()["items"]]


FRAMES = 12


def written(path: Path) -> list[bytes]:
    """The write-ahead log of a server that was killed after so many transactions, as it was after each."""
    SqlStore(f"sqlite:///{path}").close()
    store, log = SqlStore(f"sqlite:///{path}"), Path(f"{path}-wal")
    after = [log.read_bytes()]
    for number in range(1, FRAMES + 1):
        store.write([Put("sweeps", {"id": "one", "facts": str(number)})])
        store.write([Put("sweeps", {"id": f"n{number}", "facts": "x" * number * 300})])
        after.append(log.read_bytes())
    shutil.copy(path, path.with_suffix(".killed"))
    store.close()
    return after


def found(path: Path, database: bytes, log: bytes) -> tuple[int, list[int]]:
    """What the next start finds in a database with this log: the last number, and which rows there are."""
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    path.write_bytes(database)
    Path(f"{path}-wal").write_bytes(log)
    with closing(SqlStore(f"sqlite:///{path}")) as store:
        rows = {row["id"]: row["facts"] for row in store.rows("sweeps", "id", "facts")}
    last = int(rows.pop("one", 0))
    assert all(len(facts) == int(name[1:]) * 300 for name, facts in rows.items())
    return last, sorted(int(name[1:]) for name in rows)


def test_a_log_that_is_torn_anywhere_opens_at_a_transaction_and_never_between(path: Path) -> None:
    """F3: each commit is a frame whose checksum counts; what lies behind a torn one has not happened."""
    logs = written(path)
    database, whole = path.with_suffix(".killed").read_bytes(), logs[-1]
    draw, torn = random.Random(3), []
    for log in logs[1:]:
        assert whole.startswith(log)
        torn += [whole[: len(log)], whole[: len(log) - 1]]
    torn += [whole[: draw.randrange(len(whole))] for _ in range(60)]
    for _ in range(60):
        at = draw.randrange(len(whole))
        torn.append(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
    torn += [whole[:at] + bytes(len(whole) - at) for at in (draw.randrange(len(whole)) for _ in range(20))]
    seen = set()
    for log in torn:
        last, rows = found(path, database, log)
        assert rows in (list(range(1, last)), list(range(1, last + 1)))
        seen.add(last)
    assert seen == set(range(FRAMES + 1))


@pytest.mark.parametrize("part", [0.1, 0.4, 0.7, 0.95])
def test_a_start_on_a_file_that_was_cut_short_is_refused_with_one_sentence(path: Path, part: float) -> None:
    """F3."""
    with durable(path) as service:
        for _ in range(3):
            made(service.http)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part) // 4_096 * 4_096])
    with pytest.raises((SettingsError, StoreRefused), match=r"malformed|not a database|disk I/O") as refusal:
        create_engine(load(database_url=f"sqlite:///{path}"), nursery())
    assert "\n" not in str(refusal.value)


def test_a_first_start_that_is_killed_while_it_makes_its_tables_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    """F2, F23: all tables or none."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True)
    ends = [int(status) for status in killed.stdout.split()]
    assert ends == [9] * 7
    for number in range(len(ends)):
        with closing(SqlStore(f"sqlite:///{tmp_path}/{number}.db")) as store:
            assert list(store.rows("sweeps", "id")) == []


# A process for each of some statements that make the tables, which ends as if it had been killed after that one.
KILLED = """
import os, sys
from sqlalchemy import Engine, event
from service.models.sql import SqlStore

def start(path, last):
    done = []

    @event.listens_for(Engine, "after_cursor_execute")
    def die(connection, cursor, statement, *rest):
        done.append(statement.lstrip().startswith(("CREATE", "INSERT", "UPDATE", "ALTER", "DROP")))
        if sum(done) > last:
            os._exit(9)

    SqlStore(path).close()

for number in range(7):
    child = os.fork()
    if not child:
        start(f"sqlite:///{sys.argv[1]}/{number}.db", 3 * number)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
