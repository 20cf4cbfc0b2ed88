"""Several services on one PostgreSQL, over HTTP: whichever is asked, it answers as if there were one."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from sqlalchemy import text

from tests.running import Service, as_process, in_thread, until

MODEL = {"in_features": 64, "out_features": 10}
INPUTS = {"inputs": [0.5] * 64}


@pytest.fixture(scope="module")
def two(database: str) -> Iterator[tuple[Service, Service]]:
    settings = {"database_url": database, "lease_seconds": 2.0, "checkpoint_seconds": 0.2}
    with ExitStack() as stack:
        yield tuple(stack.enter_context(in_thread(**settings)) for _ in range(2))


def made(http: httpx.Client, **settings: object) -> str:
    return http.post("/models", json={**MODEL, **settings}).raise_for_status().json()["id"]


def test_what_one_has_made_every_other_has_at_once(two):
    one, other = (service.http for service in two)
    for http, elsewhere in [(one, other), (other, one)] * 10:
        model = made(http)
        assert elsewhere.post(f"/models/{model}/forward", json=INPUTS).raise_for_status()
        on_its_base = made(elsewhere, base_id=http.get(f"/models/{model}").json()["base_id"])
        assert http.get(f"/models/{on_its_base}").raise_for_status()
        job = http.post(f"/models/{on_its_base}/train", json={"epochs": 1}).raise_for_status().json()["id"]
        assert elsewhere.get(f"/jobs/{job}").raise_for_status()
        assert elsewhere.post(f"/v2/models/{model}/infer", json={"inputs": []}).status_code == 422
        assert elsewhere.delete(f"/models/{model}").status_code == 204


def test_a_sweep_started_on_one_is_read_on_the_other_and_ends_there_too(two):
    one, other = (service.http for service in two)
    tried = {"train": {"epochs": 5}, "over": {"lr": [0.01, 0.02], "rank": [1, 2]}}
    sweep = one.post("/sweeps", json={"model": MODEL, **tried}).raise_for_status().json()
    path = f"/sweeps/{sweep['id']}"
    assert len(other.get(path).raise_for_status().json()["leaderboard"]) == 4
    until(lambda: other.get(path).json()["counts"] == {"succeeded": 4})


def test_a_forward_that_names_the_least_version_never_gets_an_older_one(two):
    one, other = (service.http for service in two)
    model = made(one)
    for version in range(1, 31):
        assert one.post(f"/models/{model}/rollback", json={"version": version - 1}).raise_for_status()
        answer = other.post(f"/models/{model}/forward", json=INPUTS, headers={"X-Min-Model-Version": str(version)})
        assert int(answer.raise_for_status().headers["X-Model-Version"]) >= version
    refused = other.post(f"/models/{model}/forward", json=INPUTS, headers={"X-Min-Model-Version": "31"})
    assert (refused.status_code, refused.json()["type"]) == (412, "/problems/stale")
    assert "is at version 30" in refused.json()["detail"]
    wrong = other.post(f"/models/{model}/forward", json=INPUTS, headers={"X-Min-Model-Version": "new"})
    assert wrong.status_code == 422


def test_of_requests_with_one_key_at_two_servers_one_is_done(two):
    for number in range(5):
        headers = {"Idempotency-Key": f"at two servers {number}"}
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda k: two[k % 2].http.post("/models", json=MODEL, headers=headers), range(8))  # noqa: B023
            )
        assert {answer.status_code for answer in answers} <= {201, 409}
        ids = {answer.json()["id"] for answer in answers if answer.status_code == 201}
        again = {service.http.post("/models", json=MODEL, headers=headers).json()["id"] for service in two}
        assert ids == again
        assert len(ids) == 1


def test_a_connection_that_is_lost_is_made_again_and_nothing_is_missed(two):
    one, other = two
    model = made(one.http)
    assert other.http.get(f"/models/{model}").raise_for_status()
    with one.engine.store._engine.connect() as connection:
        cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        connection.execute(cut.execution_options(autocommit=True))
    until(lambda: one.http.patch(f"/models/{model}", json={"name": "anew"}).status_code == 200)
    until(lambda: other.http.get(f"/models/{model}").json()["name"] == "anew", 10)
    until(lambda: other.http.get("/readyz").status_code == 200)
    assert other.http.patch(f"/models/{model}", json={"name": "and back"}).raise_for_status()
    until(lambda: one.http.get(f"/models/{model}").json()["name"] == "and back", 10)


def test_while_the_database_is_silent_forwards_go_on_and_no_more_are_sent_there(two):
    one, other = two
    model = made(one.http)
    assert other.http.post(f"/models/{model}/forward", json=INPUTS).raise_for_status()
    with one.engine.store._engine.connect() as connection:
        pids = connection.execute(text("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"))
        backends = [pid for (pid,) in pids]
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: "has not answered" in other.http.get("/readyz").text)
        for _ in range(5):
            assert other.http.post(f"/models/{model}/forward", json=INPUTS, timeout=2).status_code == 200
        assert other.http.get("/livez", timeout=2).status_code == 200
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)
    for service in two:
        until(lambda: service.http.get("/readyz").status_code == 200)  # noqa: B023
    assert one.http.patch(f"/models/{model}", json={"name": "after"}).raise_for_status()
    until(lambda: other.http.get(f"/models/{model}").json()["name"] == "after", 10)


def test_a_job_of_a_server_that_is_killed_ends_at_another_without_a_gap(two, database):
    survivor = two[0].http
    settings = {"LORA_DATABASE_URL": database, "LORA_LEASE_SECONDS": "2", "LORA_CHECKPOINT_SECONDS": "0.2"}
    train = {"epochs": 1_000, "batch_size": 8, "seed": 3, "data": {"kind": "random", "n_samples": 160}}
    through = survivor.post(f"/models/{made(survivor, seed=1)}/train", json=train).json()["id"]
    until(lambda: survivor.get(f"/jobs/{through}").json()["state"] == "succeeded")
    for service in two:
        service.engine.queue.close()  # they take nothing, so that the third one does
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=30) as http:
        job = http.post(f"/models/{made(http, seed=1)}/train", json=train).json()["id"]
        until(lambda: survivor.get(f"/jobs/{job}").json()["epoch"] > 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for service in two:
        service.engine.queue._closed = False
    until(lambda: survivor.get(f"/jobs/{job}").json()["state"] == "succeeded")
    ended, alone = (survivor.get(f"/jobs/{each}").json() for each in (job, through))
    assert ended["losses"] == alone["losses"]
    assert ended["model_version"] == 1
