"""Clients that leave in the midst of a request (F11), and that ask twice (F12)."""

import random
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx

from tests.faults import drops
from tests.running import as_process, until


def test_three_hundred_connections_dropped_anywhere_leave_no_task_descriptor_or_thread() -> None:
    """F11."""
    before, after = drops.run(300, 11)
    assert after.within(before)


def test_fifty_that_train_under_one_key_and_lose_half_of_the_answers_make_one_job(tmp_path: Path) -> None:
    """F12: across a kill too."""
    settings = {"LORA_DATABASE_URL": f"sqlite:///{tmp_path}/lora.db"}
    headers = {"Idempotency-Key": "once", "Content-Type": "application/json"}
    plan = b'{"epochs": 2, "data": {"kind": "random", "n_samples": 8}}'
    draw = random.Random(12)

    def asked(url: str, model: str) -> str | None:
        """The id of the job; None where the answer was lost, or another request was under way."""
        if draw.random() < 0.5:
            host, port = url.removeprefix("http://").split(":")
            with suppress(OSError), socket.create_connection((host, int(port)), 30) as client:
                head = f"POST /models/{model}/train HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(plan)}\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                client.sendall(head.encode() + b"\r\n" + plan)
            return None
        answer = httpx.post(f"{url}/models/{model}/train", content=plan, headers=headers, timeout=60)
        assert answer.status_code in (200, 202, 409), answer.text
        return str(answer.json()["id"]) if answer.is_success else None

    with as_process(**settings) as (process, url):
        model = httpx.post(f"{url}/models", json={"in_features": 8, "out_features": 8}).json()["id"]
        with ThreadPoolExecutor(50) as threads:
            told = {*threads.map(lambda _: asked(url, model), range(50))}
        until(lambda: told.update([asked(url, model)]) or told - {None})
        process.kill()
        process.wait()
    with as_process(**settings) as (_, url):
        until(lambda: (again := asked(url, model)) is not None and (told.add(again) or True))
        assert len(told - {None}) == 1
        assert {job["id"] for job in httpx.get(f"{url}/jobs").json()["items"]} == told - {None}
