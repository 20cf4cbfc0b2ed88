"""Servers behind the load balancer are replaced one after another, under load, and no request fails."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.deploy.balancer import balancer
from tests.postgres import postgres
from tests.running import DEADLINE_SECONDS, as_process, free_port, meanwhile, until

CLIENTS = 4


def use(http: httpx.Client, answered: Counter[int]) -> None:
    """Make a model, run it, train it, look at that, list some and delete it; the answers count by their status."""
    made = http.post("/models", json={"in_features": 8, "out_features": 4, "rank": 2})
    answered[made.status_code] += 1
    model = f"/models/{made.json()['id']}"
    for _ in range(5):
        answered[http.post(f"{model}/forward", json={"inputs": [0.5] * 8}).status_code] += 1
    trained = http.post(f"{model}/train", json={"epochs": 20})
    answered[trained.status_code] += 1
    answered[http.get(f"/jobs/{trained.json()['id']}").status_code] += 1
    answered[http.get("/models?limit=5").status_code] += 1
    answered[http.delete(f"{model}?force=true").status_code] += 1


def client(url: str, answered: Counter[int]) -> Callable[[threading.Event], None]:
    """One who uses the service until it is over."""

    def uses(over: threading.Event) -> None:
        with httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as http:
            while not over.is_set():
                use(http, answered)

    return uses


def test_no_request_fails_while_one_server_after_another_is_replaced(tmp_path: Path) -> None:
    with postgres(tmp_path) as database, ExitStack() as stack:
        settings = {"LORA_DATABASE_URL": database, "LORA_WORKERS": "1", "LORA_DRAIN_SECONDS": "3"}

        def started(port: int):
            return stack.enter_context(as_process("--port", str(port), **settings))[0]

        def until_seen(port: int) -> None:
            until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200)
            time.sleep(2)  # until the load balancer has seen that

        servers = {port: started(port) for port in (free_port(), free_port())}
        answered: Counter[int] = Counter()
        with balancer(tmp_path, list(servers)) as url:
            for port in servers:
                until_seen(port)
            with meanwhile([client(url, answered)] * CLIENTS):
                for port, server in servers.items():
                    before = answered.total()
                    server.send_signal(signal.SIGTERM)
                    assert server.wait(DEADLINE_SECONDS) == 0
                    until(lambda before=before: answered.total() > before + 100)  # by the other one
                    started(port)
                    until_seen(port)
        assert set(answered) == {200, 201, 202, 204}


def test_a_server_that_is_told_to_end_serves_for_as_long_as_it_says_so(tmp_path: Path) -> None:
    with as_process(LORA_DRAIN_SECONDS="2", LORA_WORKERS="1") as (process, url), httpx.Client(base_url=url) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        until(lambda: http.get("/readyz").status_code == 503)
        answered: Counter[int] = Counter()
        while time.monotonic() - began < 1.5:
            with httpx.Client(base_url=url) as fresh:  # on new connections too
                use(fresh, answered)
        assert set(answered) == {200, 201, 202, 204}
        assert process.wait(DEADLINE_SECONDS) == 0
        assert time.monotonic() - began > 2
