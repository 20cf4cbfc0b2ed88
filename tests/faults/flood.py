"""Ask for more than a service can do, and see that it says so at once, and that all else goes on.

`python -m tests.faults.flood 60` floods it with forwards for that many seconds while it trains, at twice the rate that
it can answer, and reports the goodput beside that of a service that is not flooded.
"""

import statistics
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import httpx

from tests.running import as_process, until

BUSY, ASKERS = 4, 64
SIZES = {"in_features": 1_024, "out_features": 1_024, "rank": 8}
TRAINED = {"in_features": 64, "out_features": 64, "rank": 4}
PLAN = {"epochs": 10_000, "batch_size": 20, "data": {"kind": "random", "n_samples": 2_000}}


@dataclass
class Answers:
    """What came: how many of each status, how long each took in seconds, and the problems of what was refused."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    refusals: list[tuple[str | None, dict[str, Any]]] = field(default_factory=list)  # Retry-After, problem

    def add(self, answer: httpx.Response, seconds: float) -> None:
        self.statuses[answer.status_code] += 1
        self.seconds.setdefault(answer.status_code, []).append(seconds)
        if answer.status_code == 503:
            self.refusals.append((answer.headers.get("Retry-After"), answer.json()))


def trainings(url: str, model: str, count: int, askers: int = 4) -> Answers:
    """So many trainings of one model, asked for as fast as it goes."""
    answers, left = Answers(), iter(range(count))

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            for _ in left:
                at = time.perf_counter()
                answers.add(http.post(f"/models/{model}/train", json=PLAN), time.perf_counter() - at)

    together(ask, askers)
    return answers


def forwards(url: str, model: str, seconds: float, askers: int, rate: float | None = None) -> Answers:
    """Large forwards by so many clients, at this rate in all, or each as soon as it is answered."""
    answers, began, turns = Answers(), time.monotonic(), iter(range(askers))
    rows = bytes(64 * SIZES["in_features"] * 4)

    def ask() -> None:
        every = askers / rate if rate else 0
        due = began + every * next(turns) / askers
        with httpx.Client(base_url=url, timeout=60, headers={"Content-Type": "application/octet-stream"}) as http:
            while (now := time.monotonic()) < began + seconds:
                time.sleep(max(0, due - now))
                at = time.perf_counter()
                answers.add(http.post(f"/models/{model}/forward", content=rows), time.perf_counter() - at)
                due += every

    together(ask, askers)
    return answers


def together(ask: Any, askers: int) -> None:
    threads = [threading.Thread(target=ask) for _ in range(askers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass
class Flood:
    """What a service did in so many seconds: epochs of a job and forwards per second, and how long probes took."""

    epochs: float
    forwards: float
    answers: Answers
    probes: list[float]

    def __str__(self) -> str:
        shed = self.answers.statuses[503]
        worst, usual = max(self.probes) * 1_000, statistics.median(self.probes) * 1_000
        return (
            f"{self.epochs:.1f} epochs/s, {self.forwards:.1f} forwards/s, {shed} refused, "
            f"{dict(self.answers.statuses)}, /livez {usual:.1f} ms (at most {worst:.1f})"
        )


def flooded(seconds: float, askers: int, rate: float | None = None) -> Flood:
    """A fresh service that trains while so many clients, in a process of their own, ask for forwards; it is probed."""
    with as_process(LORA_FORWARD_WAIT_MS="200") as (_, url), httpx.Client(base_url=url, timeout=60) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        large, small = (http.post("/models", json=sizes).json()["id"] for sizes in (SIZES, TRAINED))
        job = http.post(f"/models/{small}/train", json=PLAN).json()["id"]
        until(lambda: http.get(f"/jobs/{job}").json()["epoch"] > 0)
        probes: list[float] = []
        over = threading.Event()

        def probe() -> None:
            with httpx.Client(base_url=url, timeout=60) as probing:
                while not over.wait(0.05):
                    at = time.perf_counter()
                    assert probing.get("/livez").status_code == 200
                    probes.append(time.perf_counter() - at)

        probing = threading.Thread(target=probe)
        with ProcessPoolExecutor(1, get_context("spawn")) as crowd:
            crowd.submit(time.time).result()  # what it imports is no part of the flood
            before, at = http.get(f"/jobs/{job}").json()["epoch"], time.monotonic()
            probing.start()
            answers = crowd.submit(forwards, url, large, seconds, askers, rate).result() if askers else Answers()
            time.sleep(max(0, at + seconds - time.monotonic()))
            epochs, took = http.get(f"/jobs/{job}").json()["epoch"] - before, time.monotonic() - at
            over.set()
            probing.join()
        assert http.post(f"/models/{large}/forward", json={"inputs": [0] * 1_024}).status_code == 200
        return Flood(epochs / took, answers.statuses[200] / took, answers, probes)


if __name__ == "__main__":
    length = float(sys.argv[1])
    print(f"trains alone: {flooded(length, 0)}")
    print(f"and answers {BUSY} clients: {(busy := flooded(length, BUSY))}")
    print(f"and is asked for twice as much: {(twice := flooded(length, ASKERS, 2 * busy.forwards))}")
    print(f"goodput, flooded ÷ not: {twice.forwards / busy.forwards:.2f}")
