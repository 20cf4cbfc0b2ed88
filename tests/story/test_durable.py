"""A durable service from the first start to the last: killed, ended, copied, and never empty by mistake."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from service.cli.serve import DURABLE, in_force, summary
from service.engine.engine import PAUSE_SECONDS
from service.models.sql import SqlStore
from service.settings import load
from tests.api.test_server import listens
from tests.cli.test_serve import lora
from tests.running import DEADLINE_SECONDS, as_process, descendants, until
from tests.story import kills, replicas


@pytest.mark.timeout(600)
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    assert kills.run(5, 7, tmp_path).jobs


def test_a_signal_ends_a_durable_service_cleanly_and_its_job_goes_on(tmp_path: Path) -> None:
    settings = {"LORA_DATABASE_URL": f"sqlite:///{tmp_path}/lora.db", "LORA_CHECKPOINT_SECONDS": "0.1"}
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=30) as http:
        limits = http.get("/limits")
        assert limits.json().get("durable") is True, limits.text
        model = http.post("/models", json={"in_features": 64, "out_features": 64}).json()
        assert model["durable"] is True
        train = {"epochs": 2_000, "batch_size": 8, "data": {"kind": "random", "n_samples": 80}}
        job = http.post(f"/models/{model['id']}/train", json=train).json()["id"]
        until(lambda: http.get(f"/jobs/{job}").json()["epoch"] > 50)
        seen = http.get(f"/jobs/{job}").json()["losses"]
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=30) as http:
        until(lambda: http.get(f"/jobs/{job}").json()["state"] == "succeeded")
        assert http.get(f"/jobs/{job}").json()["losses"][: len(seen)] == seen
        assert http.get(f"/models/{model['id']}").json()["version"] == 1


def refused(database: str) -> str:
    """What a server says that does not start."""
    ended = lora("serve", "--port", "0", LORA_DATABASE_URL=database)
    assert ended.returncode == 2, ended.stdout
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def test_a_start_that_cannot_have_its_database_is_refused_with_one_line(tmp_path: Path) -> None:
    assert "No such file or directory" in refused(f"sqlite:///{tmp_path}/no/lora.db")
    assert "is no URL of a database" in refused("lora.db")
    (tmp_path / "folder").mkdir()
    assert "unable to open database file" in refused(f"sqlite:///{tmp_path}/folder")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"x" * 10_000)
    assert "file is not a database" in refused(f"sqlite:///{damaged}")
    path = tmp_path / "lora.db"
    with closing(SqlStore(f"sqlite:///{path}")):
        assert "another server uses" in refused(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffff'")
    assert "written by a newer one" in refused(f"sqlite:///{path}")


def test_a_durable_start_says_so(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/lora.db"
    printed = summary(in_force(load(database_url=database), "cpu", database), durable=True)
    assert printed[-1] == DURABLE
    assert f"LORA_DATABASE_URL={database}" in printed


def test_a_backup_of_a_running_service_starts_another_one_in_which_the_job_goes_on(tmp_path: Path) -> None:
    first, second = (f"sqlite:///{tmp_path}/{name}.db" for name in ("first", "second"))
    with as_process(LORA_DATABASE_URL=first) as (_, url), httpx.Client(base_url=url, timeout=30) as http:
        model = http.post("/models", json={"in_features": 64, "out_features": 64}).json()["id"]
        train = {"epochs": 400, "batch_size": 8, "seed": 1, "data": {"kind": "random", "n_samples": 400, "seed": 1}}
        job = http.post(f"/models/{model}/train", json=train).json()["id"]
        until(lambda: http.get(f"/jobs/{job}").json()["epoch"] > 5)
        saved = lora("backup", str(tmp_path / "saved"), LORA_DATABASE_URL=first)
        assert (saved.returncode, saved.stdout) == (0, f"{tmp_path}/saved holds all of {first}\n"), saved.stderr
        until(lambda: http.get(f"/jobs/{job}").json()["state"] == "succeeded")
        losses = http.get(f"/jobs/{job}").json()["losses"]
    restored = lora("restore", str(tmp_path / "saved"), LORA_DATABASE_URL=second)
    assert (restored.returncode, restored.stdout) == (0, f"{second} holds all of {tmp_path}/saved\n"), restored.stderr
    with as_process(LORA_DATABASE_URL=second) as (_, url), httpx.Client(base_url=url, timeout=30) as http:
        until(lambda: http.get(f"/jobs/{job}").json()["state"] == "succeeded")
        assert http.get(f"/jobs/{job}").json()["losses"] == losses
    again = lora("backup", str(tmp_path / "saved"), LORA_DATABASE_URL=first)
    assert (again.returncode, again.stderr) == (2, f"lora: {tmp_path}/saved is there already; name a new file\n")
    assert "names no database" in lora("backup", str(tmp_path / "none")).stderr


def test_a_second_signal_does_not_wait_for_a_long_epoch_and_harms_nothing(tmp_path: Path) -> None:
    settings = {"LORA_DATABASE_URL": f"sqlite:///{tmp_path}/lora.db"}
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=30) as http:
        model = http.post("/models", json={"in_features": 64, "out_features": 64}).json()["id"]
        train = {"epochs": 1, "batch_size": 1, "data": {"kind": "random", "n_samples": 200_000}}
        job = http.post(f"/models/{model}/train", json=train).json()["id"]
        until(lambda: http.get(f"/jobs/{job}").json()["state"] == "running")
        process.terminate()
        until(lambda: not listens(url))
        process.terminate()
        at = time.monotonic()
        assert process.wait(DEADLINE_SECONDS) == 0
        assert time.monotonic() - at < PAUSE_SECONDS - 1
    with as_process(**settings) as (process, url):
        assert httpx.get(f"{url}/jobs/{job}").json()["state"] in ("queued", "running")


def test_a_job_goes_on_where_it_stopped_when_all_processes_of_the_service_are_told_to_end(tmp_path: Path) -> None:
    settings = {"LORA_DATABASE_URL": f"sqlite:///{tmp_path}/lora.db", "LORA_CHECKPOINT_SECONDS": "60"}
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=30) as http:
        model = http.post("/models", json={"in_features": 64, "out_features": 64}).json()["id"]
        train = {"epochs": 10_000, "batch_size": 20, "data": {"kind": "random", "n_samples": 2_000}}
        job = http.post(f"/models/{model}/train", json=train).json()["id"]
        until(lambda: http.get(f"/jobs/{job}").json()["epoch"] > 3)
        for pid in (*descendants(process.pid), process.pid):  # as systemd does
            os.kill(pid, signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0
    with as_process(**settings) as (process, url):
        goes_on = httpx.get(f"{url}/jobs/{job}").json()
        assert goes_on["state"] in ("queued", "running")
        assert goes_on["epoch"] > 3


@pytest.mark.timeout(600)
def test_kills_of_one_of_two_servers_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    assert any(known.jobs for known in replicas.run(2, 7, tmp_path))
