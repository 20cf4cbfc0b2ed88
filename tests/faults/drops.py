"""Drop connections at random points of a request, and count what that leaves behind.

`python -m tests.faults.drops 10000 [SEED]` does so in full; the tests do it a few hundred times.
"""

import asyncio
import gc
import json
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.progress import track

from tests.running import DEADLINE_SECONDS, Service, in_thread, until

FEATURES = 1_024  # large enough that a forward is queued
LATE = 4
VERSION_BYTES = 1_024  # of the small model, of which one more may be kept: the best
ABRUPT = struct.pack("ii", 1, 0)  # SO_LINGER: the connection is reset


@dataclass(frozen=True)
class Kept:
    """What a process holds."""

    tasks: int
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> "Kept":
        """What this one does."""
        tasks = sum(issubclass(type(each), asyncio.Task) and not each.done() for each in gc.get_objects())
        return cls(tasks, len(os.listdir("/proc/self/fd")), threading.active_count())

    def within(self, other: "Kept") -> bool:
        """Whether there is no more of anything here than there, but for a few that a pool may begin late."""
        names = ("tasks", "descriptors", "threads")
        return all(getattr(self, name) <= getattr(other, name) + LATE for name in names)


def request(method: str, path: str, body: bytes = b"", media_type: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def requests(model: str, small: str) -> list[bytes]:
    """One of each kind: forwards as they are queued and as they are answered at once, uploads, streams, reads."""
    rows = json.dumps({"inputs": [[0.5] * FEATURES] * 4}).encode()
    return [
        request("POST", f"/models/{model}/forward", rows),
        request("POST", f"/models/{model}/forward", bytes(4 * FEATURES * 16), "application/octet-stream"),
        request("POST", f"/models/{small}/forward", b'{"inputs": [0, 0, 0, 0]}'),
        request("POST", "/datasets", bytes(100_000), "application/x-safetensors"),
        request("GET", "/events"),
        request("GET", f"/models/{model}/weights"),
        request("GET", "/models") * 5,
        request("POST", f"/models/{small}/train", b'{"epochs": 1}').replace(b"\r\n\r\n", b"\r\nPrefer: wait=5\r\n\r\n"),
    ]


def drop(service: Service, sent: bytes, draw: random.Random) -> None:
    """Send some or all of a request, perhaps take some of the answer, and leave, politely or not."""
    host, port = service.url.removeprefix("http://").split(":")
    with suppress(ConnectionError), socket.create_connection((host, int(port)), DEADLINE_SECONDS) as client:
        if draw.random() < 0.5:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPT)
        client.sendall(sent if draw.random() < 0.6 else sent[: draw.randrange(len(sent))])
        if draw.random() < 0.3:
            client.settimeout(0.02)
            with suppress(TimeoutError):
                client.recv(draw.choice([1, 100, 65_536]))
        elif draw.random() < 0.5:
            time.sleep(draw.uniform(0, 0.004))


def run(times: int, seed: int, watched: Callable[[range], Iterable[Any]] = iter) -> tuple[Kept, Kept]:
    """What a service holds before and after so many connections that were dropped; a job goes on meanwhile."""
    draw = random.Random(seed)
    with in_thread(workers=2, stall_seconds=2, body_seconds=2, head_seconds=2) as service:
        service.wait_for_workers()
        http = service.http
        model = http.post("/models", json={"in_features": FEATURES, "out_features": FEATURES}).json()["id"]
        small = http.post("/models", json={"in_features": 4, "out_features": 4, "rank": 1}).json()["id"]
        kinds = requests(model, small)
        for sent in kinds * 4:  # by which all threads of its pools are there
            drop(service, sent, draw)
        for _ in range(7):  # by which as many versions are kept as may be
            http.post(f"/models/{small}/train", json={"epochs": 1}, headers={"Prefer": "wait=30"})
        long = {"epochs": 10_000, "batch_size": 1, "data": {"kind": "random", "n_samples": 2_000}}
        job = http.post(f"/models/{model}/train", json=long).json()["id"]
        settle(service, job)
        used = service.engine.budget.used
        before = Kept.now()
        for _ in watched(range(times)):
            drop(service, draw.choice(kinds), draw)
        settle(service, job)
        until(lambda: Kept.now().within(before), 30)
        after = Kept.now()
        more = service.engine.budget.used - used
        assert more <= VERSION_BYTES, f"{more} bytes are still counted"
        assert http.get(f"/jobs/{job}").json()["state"] in ("queued", "running")
        http.post(f"/jobs/{job}/cancel")
        assert http.get("/livez").status_code == 200
    return before, after


def settle(service: Service, but: str) -> None:
    """Wait until only one job has not ended, and the last forward is over."""
    until(lambda: [job.id for job in service.engine.ledger.all() if not job.state.terminal] == [but])
    time.sleep(0.5)
    gc.collect()


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(f"seed {chosen}")
    held = run(int(sys.argv[1]), chosen, track)
    print(f"{sys.argv[1]} connections dropped: {held[0]} before, {held[1]} after, and the job went on")
