"""Kill one of two servers on one PostgreSQL again and again, while clients go on at the other; nothing may be lost.

`python -m tests.story.replicas 100 [SEED]` does so in full; the tests do it a few times.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.postgres import postgres
from tests.running import as_process, meanwhile, until
from tests.story.kills import Known, act, check, ended, listed, main

CLIENTS = 2


def client(urls: list[str], known: Known, draw: random.Random, over: threading.Event) -> None:
    """Create, rename, train and delete at random, each time at any of the servers, until it is over."""
    while not over.is_set():
        with suppress(httpx.TransportError), httpx.Client(base_url=draw.choice(urls), timeout=30) as http:
            for _ in range(draw.randrange(1, 6)):
                act(http, known, draw)


def asking(urls: list[str], known: list[Known], draw: random.Random) -> AbstractContextManager[None]:
    """Clients that use the servers meanwhile, each with models of its own."""

    def asks(mine: Known, seed: float) -> Callable[[threading.Event], None]:
        return lambda over: client(urls, mine, random.Random(seed), over)

    return meanwhile([asks(mine, draw.random()) for mine in known])


def counted_once(http: httpx.Client) -> None:
    """No job has an epoch twice, and no version came of a job that another came of."""
    for job_id, job in listed(http, "/jobs").items():
        told = http.get(f"/jobs/{job_id}/events", headers={"Accept": "application/json"}).raise_for_status().json()
        epochs = [event["data"]["epoch"] for event in told["items"] if event["event"] == "epoch"]
        assert epochs == list(range(1, job["epoch"] + 1)), job_id
        if job["state"] == "succeeded":
            assert len(job["losses"]) == job["epochs"], job_id
    for model_id in listed(http, "/models"):
        versions = http.get(f"/models/{model_id}/versions").raise_for_status().json()["items"]
        made_by = [version["job_id"] for version in versions if version["job_id"] is not None]
        assert len(made_by) == len(set(made_by)), model_id


def run(times: int, seed: int, folder: Path, watched: Callable[[range], Any] = iter) -> list[Known]:
    """Kill one of two servers so many times, start another in its place, then let all end and check everything."""
    known, draw = [Known() for _ in range(CLIENTS)], random.Random(seed)
    with postgres(folder) as database, ExitStack() as stack:
        settings = {"LORA_DATABASE_URL": database, "LORA_CHECKPOINT_SECONDS": "0.1", "LORA_LEASE_SECONDS": "2"}

        def started() -> tuple[ExitStack, Any, str]:
            own = stack.enter_context(ExitStack())
            return own, *own.enter_context(as_process(**settings, LORA_WORKERS="1"))

        servers = [started(), started()]
        for _ in watched(range(times)):
            with asking([url for _, _, url in servers], known, draw):
                until(lambda: any(mine.jobs for mine in known))
                time.sleep(draw.random())
                place = draw.randrange(len(servers))
                own, process, _ = servers[place]
                process.kill()
                time.sleep(draw.random())
            own.close()
            servers[place] = started()
        for _, _, url in servers:
            with httpx.Client(base_url=url, timeout=60) as http:
                until(lambda http=http: ended(http), 300)
                for mine in known:
                    check(http, mine)
                counted_once(http)
        for own, process, _ in servers:
            process.terminate()
            assert process.wait(30) == 0
            assert "Traceback" not in process.stdout.read()
            own.close()
    return known


if __name__ == "__main__":
    main(run, "nothing lost, nothing twice")
