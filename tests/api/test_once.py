"""The same request with the same Idempotency-Key is done once, however often it comes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from service.errors import IdempotencyInFlight
from service.models.replies import KEPT_HOURS, MAX_KEPT, Replies, Reply
from service.models.store import MemoryOnly
from tests.models.faults import read_only
from tests.running import as_process, in_thread

KEY = {"Idempotency-Key": "k1"}
SIZES = {"in_features": 4, "out_features": 3, "rank": 2}
ROWS = save({"x": np.ones((4, 4), np.float32), "y": np.ones((4, 3), np.float32)})
SAFETENSORS = {"Content-Type": "application/x-safetensors"}


def requests(http: httpx.Client, tag: str) -> dict[str, dict[str, Any]]:
    """Every kind of request that makes something."""
    model = http.post("/models", json=SIZES).json()["id"]
    dataset = http.post("/datasets", content=ROWS, headers=SAFETENSORS).json()["id"]
    trained = {"epochs": 1, "validation": 0.5}
    key = {"Idempotency-Key": f"{tag}"}
    return {
        "/models": {"json": SIZES, "headers": key},
        "/datasets": {"content": ROWS, "headers": {**SAFETENSORS, **key}},
        f"/datasets/{dataset}/rows": {"content": ROWS, "headers": {**SAFETENSORS, **key}},
        "/sweeps": {"json": {"model": SIZES, "over": {"rank": [1, 2]}, "train": trained}, "headers": key},
        f"/models/{model}/rollback": {"json": {"version": 0}, "headers": key},
        f"/models/{model}/train": {"json": {"epochs": 1}, "headers": key},
    }


def counted(http: httpx.Client) -> tuple[int, ...]:
    return tuple(
        len(http.get(path, params={"limit": 200}).json()["items"]) for path in ("/models", "/datasets", "/jobs")
    )


def test_a_request_that_could_not_be_stored_is_done_by_its_repeat(tmp_path: Path) -> None:
    with in_thread(database_url=f"sqlite:///{tmp_path}/lora.db") as service:
        for path, request in requests(service.http, "unstored").items():
            before = counted(service.http)
            with read_only(service.engine.store):
                assert service.http.post(path, **request).status_code == 503, path
            assert counted(service.http) == before
            done = service.http.post(path, **request)
            assert done.is_success, done.text
            assert "idempotency-replayed" not in done.headers


def test_a_repeat_gets_the_first_answer_and_makes_nothing() -> None:
    with in_thread() as service:
        http = service.http
        for path, request in requests(http, "once").items():
            first = http.post(path, **request)
            assert first.is_success, first.text
            assert "idempotency-replayed" not in first.headers
            there = counted(http)
            again = http.post(path, **request)
            assert again.headers["idempotency-replayed"] == "true"
            assert counted(http) == there
            if path.endswith(("/train", "/sweeps")):  # bound to what goes on meanwhile
                assert again.json()["id"] == first.json()["id"]
            else:
                assert (again.status_code, again.content) == (first.status_code, first.content)
                assert again.headers.get("location") == first.headers.get("location")


def test_another_request_under_the_key_is_422(http: httpx.Client) -> None:
    key = {"Idempotency-Key": '"quoted"'}
    assert http.post("/models", json=SIZES, headers=key).status_code == 201
    other = http.post("/models", json={**SIZES, "rank": 1}, headers={"Idempotency-Key": "quoted"})
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-mismatch")
    rows = {"content": ROWS, "headers": {**SAFETENSORS, "Idempotency-Key": "rows"}}
    assert http.post("/datasets", **rows).status_code == 201
    assert http.post("/datasets?keep_rows=false", **rows).json()["type"] == "/problems/idempotency-mismatch"


@pytest.mark.parametrize("key", ["", '""', "k" * 256, "k" * 10_000])
def test_a_key_that_is_none_is_400(http: httpx.Client, key: str) -> None:
    refused = http.post("/models", json=SIZES, headers={"Idempotency-Key": key})
    assert (refused.status_code, refused.json()["type"]) == (400, "/problems/bad-idempotency-key")


def test_a_request_that_failed_may_be_sent_again(http: httpx.Client) -> None:
    key = {"Idempotency-Key": "failed"}
    assert http.post("/models", json={**SIZES, "rank": 9}, headers=key).status_code == 422
    assert http.post("/models", json=SIZES, headers=key).status_code == 201


def test_keys_of_two_addresses_are_two_keys(http: httpx.Client) -> None:
    one, other = (http.post("/models", json=SIZES).json()["id"] for _ in range(2))
    jobs = {http.post(f"/models/{model}/train", json={}, headers=KEY).json()["id"] for model in (one, other, one)}
    assert len(jobs) == 2


def test_a_cancel_under_a_key_is_one_cancel_and_another_body_is_422(http: httpx.Client) -> None:
    model = http.post("/models", json=SIZES).json()["id"]
    long = {"epochs": 10_000, "batch_size": 1, "data": {"kind": "random", "n_samples": 500}}
    job = http.post(f"/models/{model}/train", json=long).json()["id"]
    key = {"Idempotency-Key": "cancel"}
    first, again = (http.post(f"/jobs/{job}/cancel", headers=key) for _ in range(2))
    assert (first.status_code, first.json()["state"]) == (200, "cancelled")
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    other = http.post(f"/jobs/{job}/cancel", headers=key, content=b"{}")
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-mismatch")
    rows = {"content": ROWS, "headers": {**SAFETENSORS, "Idempotency-Key": "rows"}}
    assert http.post("/datasets", **rows).status_code == 201
    assert http.post("/datasets?keep_rows=false", **rows).json()["type"] == "/problems/idempotency-mismatch"


def test_of_twins_at_once_one_is_done_and_no_other_gets_another_answer(http: httpx.Client) -> None:
    key, barrier = {"Idempotency-Key": "twins"}, threading.Barrier(8)

    def ask(_: int) -> httpx.Response:
        barrier.wait()
        return http.post("/models", json={"in_features": 512, "out_features": 512}, headers=key)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    conflicts = [answer.json() for answer in answers if answer.status_code == 409]
    assert all(each["type"] == "/problems/idempotency-in-flight" and each["retryable"] for each in conflicts)


def test_a_repeat_after_a_kill_gets_the_first_answer_too(tmp_path: Path) -> None:
    settings = {"LORA_DATABASE_URL": f"sqlite:///{tmp_path}/lora.db"}
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=30) as http:
        asked = requests(http, "kill")
        firsts = {path: http.post(path, **request) for path, request in asked.items()}
        process.kill()
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=30) as http:
        for path, request in asked.items():
            again = http.post(path, **request)
            assert again.headers["idempotency-replayed"] == "true"
            assert again.json()["id"] == firsts[path].json()["id"]
            if not path.endswith(("/train", "/sweeps")):
                assert again.content == firsts[path].content


def test_replies_are_kept_for_a_day_and_so_many_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_KEPT == 10_000
    monkeypatch.setattr("service.models.replies.MAX_KEPT", 100)
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    replies = Replies(MemoryOnly(), lambda: now[0])

    def answer(key: str) -> None:
        assert replies.begin(key, "f") is None
        with pytest.raises(IdempotencyInFlight):
            replies.begin(key, "f")
        replies.end(key, Reply("f", "mdl_1", 201, at=now[0]))

    answer("a")
    assert replies.begin("a", "f").made == "mdl_1"
    now[0] += timedelta(hours=KEPT_HOURS, seconds=1)
    answer("a")
    for number in range(100):
        answer(f"k{number}")
    assert replies.begin("a", "f") is None
    assert replies.begin("k0", "f") is not None
