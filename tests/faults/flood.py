"""Ask for more than a service can do, and see that it says so at once, and that all else goes on.

`python -m tests.faults.flood 60` floods it with forwards for that many seconds while it trains, at twice the rate that
it can answer, and reports the goodput beside that of a service that is not flooded.
"""

import asyncio
import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import httpx
import uvloop

from tests.running import as_process, until

BUSY, ASKERS = 16, 64
TURN_SECONDS = 10
SIZES = {"in_features": 1_024, "out_features": 1_024, "rank": 8}
TRAINED = {"in_features": 64, "out_features": 64, "rank": 4}
PLAN = {"epochs": 10_000, "batch_size": 20, "data": {"kind": "random", "n_samples": 8_000}}


@dataclass
class Answers:
    """What came: how many of each status, how long each took in seconds, and the problems of what was refused."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    refusals: list[tuple[str | None, dict[str, Any]]] = field(default_factory=list)  # Retry-After, problem


class Asker:
    """A connection that costs the core it comes from little."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: Answers) -> None:
        self._reader, self._writer, self._answers = reader, writer, answers

    async def ask(self, path: str, body: bytes, media_type: str = "application/json") -> None:
        """Post the body, and note what comes."""
        at = time.perf_counter()
        self._writer.write(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), media_type.encode(), len(body), body)
        )
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        said, status = await self._reader.readexactly(int(headers["content-length"])), int(first.split()[1])
        self._answers.statuses[status] += 1
        self._answers.seconds.setdefault(status, []).append(time.perf_counter() - at)
        if status == 503:
            self._answers.refusals.append((headers.get("retry-after"), json.loads(said)))

    def close(self) -> None:
        """Be gone."""
        self._writer.close()


def asked(url: str, askers: int, asks: Callable[[Asker, int], Awaitable[None]]) -> Answers:
    """What so many get, each of which asks in its own way, numbered from 0."""
    answers = Answers()
    host, port = url.removeprefix("http://").split(":")

    async def one(number: int) -> None:
        with closing(Asker(*await asyncio.open_connection(host, int(port)), answers)) as asker:
            await asks(asker, number)

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, range(askers)))

    uvloop.run(all_of_them())
    return answers


def trainings(url: str, model: str, count: int, askers: int = 4) -> Answers:
    """So many trainings of one model, asked for as fast as it goes."""
    plan, left = json.dumps(PLAN).encode(), iter(range(count))

    async def ask(asker: Asker, number: int) -> None:
        for _ in left:
            await asker.ask(f"/models/{model}/train", plan)

    return asked(url, askers, ask)


def forwards(url: str, model: str, seconds: float, askers: int, rate: float | None = None) -> Answers:
    """Large forwards by so many clients, at this rate in all, or each as soon as it is answered."""
    began, rows = time.monotonic(), bytes(64 * SIZES["in_features"] * 4)
    every = askers / rate if rate else 0

    async def ask(asker: Asker, number: int) -> None:
        due = began + every * number / askers
        while (now := time.monotonic()) < began + seconds:
            await asyncio.sleep(due - now)
            await asker.ask(f"/models/{model}/forward", rows, "application/octet-stream")
            due += every

    return asked(url, askers, ask)


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


@dataclass
class Trainer:
    """A service that trains; a process beside it asks for forwards."""

    http: httpx.Client
    crowd: ProcessPoolExecutor
    large: str
    job: str

    def flooded(self, seconds: float, askers: int, rate: float | None = None) -> Flood:
        """What it does while so many ask, as `forwards` has it, and is probed all the time."""
        url, probes, over = str(self.http.base_url).rstrip("/"), list[float](), threading.Event()

        def probe() -> None:
            with httpx.Client(base_url=url, timeout=60) as probing:
                probing.get("/livez")  # which connects
                while not over.wait(0.05):
                    at = time.perf_counter()
                    assert probing.get("/livez").status_code == 200
                    probes.append(time.perf_counter() - at)

        probing = threading.Thread(target=probe)
        before, at = self._epoch(), time.monotonic()
        probing.start()
        answers = self.crowd.submit(forwards, url, self.large, seconds, askers, rate).result()
        time.sleep(max(0, at + seconds - time.monotonic()))
        epochs, took = self._epoch() - before, time.monotonic() - at
        over.set()
        probing.join()
        return Flood(epochs / took, answers.statuses[200] / took, answers, probes)

    def _epoch(self) -> int:
        job = self.http.get(f"/jobs/{self.job}").json()
        assert job["state"] == "running", job
        return int(job["epoch"])


@contextmanager
def trainer() -> Iterator[Trainer]:
    """A fresh service that has begun to train."""
    with (
        as_process(LORA_FORWARD_WAIT_MS="200") as (_, url),
        httpx.Client(base_url=url, timeout=60) as http,
        ProcessPoolExecutor(1, get_context("spawn")) as crowd,
    ):
        until(lambda: http.get("/readyz").status_code == 200)
        large, small = (http.post("/models", json=sizes).json()["id"] for sizes in (SIZES, TRAINED))
        job = http.post(f"/models/{small}/train", json=PLAN).json()["id"]
        until(lambda: http.get(f"/jobs/{job}").json()["epoch"] > 0)
        crowd.submit(time.time).result()  # what it imports is no part of the flood
        yield Trainer(http, crowd, large, job)
        assert http.post(f"/models/{large}/forward", json={"inputs": [0] * 1_024}).status_code == 200


if __name__ == "__main__":
    ratios = []
    with trainer() as service:
        print(f"trains alone: {service.flooded(TURN_SECONDS, 0)}")
        for _ in range(round(float(sys.argv[1]) / TURN_SECONDS)):  # in turns: a machine is seldom one's own
            print(f"and answers {BUSY} clients: {(busy := service.flooded(TURN_SECONDS, BUSY))}")
            print(
                f"and is asked for twice as much: {(twice := service.flooded(TURN_SECONDS, ASKERS, 2 * busy.forwards))}"
            )
            ratios.append(twice.forwards / busy.forwards)
    print(f"goodput, flooded ÷ not: {statistics.median(ratios):.2f}")
