"""Use one server in all ways for long, and measure whether its memory, descriptors or threads grow.

`python -m tests.faults.soak MINUTES` prints them at intervals, and ends with 1 where memory grows by more than 1 MiB
in 10 minutes after the first third.
"""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from tests.faults.many import resident
from tests.running import as_process

MOST_MIB = 1.0  # in 10 minutes
MIB = 2**20
SIZES = {"in_features": 64, "out_features": 32, "rank": 4}
PLAN = {"epochs": 5, "data": {"kind": "random", "n_samples": 100}}
RAW = {"Content-Type": "application/octet-stream"}
# So little is remembered of what has ended that all of it is there by the end of the warm-up.
SETTINGS = {"LORA_KEEP_JOBS": "50", "LORA_KEEP_VERSIONS": "2", "LORA_STATES_MIB": "1", "LORA_WORKERS": "1"}


@dataclass
class Held:
    """What a process has at a moment."""

    seconds: float
    nbytes: int
    descriptors: int
    threads: int

    @classmethod
    def by(cls, pid: int, began: float) -> "Held":
        counts = (len([*Path(f"/proc/{pid}/{of}").iterdir()]) for of in ("fd", "task"))
        return cls(time.monotonic() - began, resident(pid), *counts)

    def __str__(self) -> str:
        mib = f"{self.nbytes / MIB:8.1f} MiB"
        return f"{self.seconds:6.0f} s {mib} {self.descriptors:5} descriptors {self.threads} threads"


def churn(http: httpx.Client, kept: str) -> None:
    model = http.post("/models", json=SIZES).json()["id"]
    http.post(f"/models/{model}/forward", json={"inputs": [0.5] * 64}).raise_for_status()
    http.delete(f"/models/{model}").raise_for_status()


def forward(http: httpx.Client, kept: str) -> None:
    http.post(f"/models/{kept}/forward", json={"inputs": [[0.5] * 64] * 8}).raise_for_status()
    rows = np.ones((64, 64), np.float32).tobytes()
    http.post(f"/models/{kept}/forward", content=rows, headers=RAW).raise_for_status()


def train(http: httpx.Client, kept: str) -> None:
    answer = http.post(f"/models/{kept}/train", json=PLAN, headers={"Prefer": "wait=30"})
    assert answer.json()["state"] == "succeeded", answer.text


def follow(http: httpx.Client, kept: str) -> None:
    job = http.post(f"/models/{kept}/train", json=PLAN).json()["id"]
    with http.stream("GET", f"/jobs/{job}/events") as stream:
        assert any(line == "event: done" for line in stream.iter_lines())


def leave(http: httpx.Client, kept: str) -> None:
    with suppress(httpx.TransportError), http.stream("GET", "/events") as stream:
        next(stream.iter_lines())


def refuse(http: httpx.Client, kept: str) -> None:
    for asked, status in (
        (http.post("/models", json={**SIZES, "rank": 99}), 422),
        (http.post("/models", content=b"{", headers={"Content-Type": "application/json"}), 400),
        (http.get("/models/mdl_0"), 404),
        (http.post(f"/models/{kept}/forward", json={"inputs": ["x"] * 20_000}), 422),
        (http.post(f"/models/{kept}/forward", json={"inputs": [0.5]}), 422),
    ):
        assert asked.status_code == status, asked.text


VERBS = (churn, churn, forward, forward, forward, forward, train, follow, leave, refuse)


def use(url: str, over: threading.Event, done: Counter[str], seed: int) -> None:
    """All verbs at random until it is over."""
    draw = random.Random(seed)
    with httpx.Client(base_url=url, timeout=60) as http:
        kept = http.post("/models", json=SIZES).json()["id"]
        while not over.is_set():
            verb = draw.choice(VERBS)
            verb(http, kept)
            done[verb.__name__] += 1


def slope(held: list[Held]) -> float:
    """MiB in 10 minutes, by least squares, after the first third."""
    late = [each for each in held if each.seconds > held[-1].seconds / 3]
    per_second, _ = np.polyfit([each.seconds for each in late], [each.nbytes / MIB for each in late], 1)
    return float(per_second) * 600


def run(minutes: float, told: Callable[[object], None] = print) -> tuple[list[Held], Counter[str]]:
    """What the server had at each of some 60 moments, and how often it did what."""
    over, done, held = threading.Event(), Counter[str](), []
    with as_process(**SETTINGS) as (process, url):
        users = [threading.Thread(target=use, args=(url, over, done, seed)) for seed in range(3)]
        began = time.monotonic()
        for user in users:
            user.start()
        try:
            for moment in range(1, 61):
                time.sleep(max(0.0, began + moment * minutes - time.monotonic()))
                held.append(Held.by(process.pid, began))
                told(held[-1])
                assert all(user.is_alive() for user in users), "a user met what it did not expect"
        finally:
            over.set()
            for user in users:
                user.join()
    return held, done


if __name__ == "__main__":
    found, did = run(float(sys.argv[1]))
    grows = slope(found)
    print(f"{dict(did)}\nmemory grows by {grows:.2f} MiB in 10 minutes; at most {MOST_MIB} is well")
    sys.exit(grows > MOST_MIB)
