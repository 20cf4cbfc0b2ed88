"""Faults at random, drawn by a seed, against a durable server in use; at each quiet point it has what it acknowledged.

`python -m tests.faults.chaos SECONDS [SEED]`, or `make chaos`; the tests inject each fault once.
"""

import os
import random
import resource
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from subprocess import Popen

import httpx
from rich.progress import Progress

from tests.running import DEADLINE_SECONDS, as_process, children, descendants, until
from tests.story.kills import Known, check, client, ended

REFUSED = frozenset({503, 507})
PLAN = {"epochs": 10, "batch_size": 8, "data": {"kind": "random", "n_samples": 80}}


class World:
    """A server on one database, somebody who uses it, and what they were told."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.known = Known(refusals=REFUSED, workers_die=True, plan=PLAN)
        self.path = folder / "lora.db"
        self.process: Popen[str]
        self.url = ""
        self._server = ExitStack()
        self.start()

    def start(self) -> None:
        """The server, once more on the same database."""
        self._server.close()
        self.process, self.url = self._server.enter_context(
            as_process(
                LORA_DATABASE_URL=f"sqlite:///{self.path}",
                LORA_CHECKPOINT_SECONDS="0.1",
                LORA_KEEP_JOBS="1000000",
                LORA_HEAD_SECONDS="1",
            )
        )

    def close(self) -> None:
        self._server.close()

    def used_while(self, fault: Callable[["World"], None]) -> None:
        """Somebody uses the server when the fault comes, and for a moment after it."""
        over = threading.Event()
        asks = threading.Thread(target=client, args=(self.url, self.known, random.Random(self.draw.random()), over))
        asks.start()
        time.sleep(self.draw.uniform(0, 0.5))
        fault(self)
        time.sleep(self.draw.uniform(0, 0.2))
        over.set()
        asks.join()

    def quiet(self) -> None:
        """The server is up, all jobs have ended, and what it has is what is known."""
        if self.process.poll() is not None:
            assert self.process.stdout is not None
            assert "Traceback" not in self.process.stdout.read()
            self.start()
        with httpx.Client(base_url=self.url, timeout=DEADLINE_SECONDS) as http:
            assert http.get("/livez").status_code == 200
            if "restart" in http.get("/readyz").json().get("storage", ""):  # a write of which nothing is known
                end(self)
                return self.quiet()
            until(lambda: ended(http), 120)
            check(http, self.known)
            return None


def kill(world: World) -> None:
    world.process.kill()
    world.process.wait()


def end(world: World) -> None:
    world.process.terminate()
    assert world.process.wait(DEADLINE_SECONDS) == 0


def end_twice(world: World) -> None:
    world.process.terminate()
    time.sleep(world.draw.uniform(0, 0.1))
    world.process.terminate()
    assert world.process.wait(DEADLINE_SECONDS) in (0, -signal.SIGTERM)


def kill_a_worker(world: World) -> None:
    """One that trains: the nursery's children are workers."""
    workers = [pid for nursery in children(world.process.pid) for pid in children(nursery)]
    for pid in workers[:1]:
        signalled(pid, signal.SIGKILL)


def kill_the_nursery(world: World) -> None:
    for pid in children(world.process.pid)[:1]:
        signalled(pid, signal.SIGKILL)


def stop_for_a_moment(world: World) -> None:
    family = [world.process.pid, *descendants(world.process.pid)]
    for sent in (signal.SIGSTOP, signal.SIGCONT):
        for pid in family:
            signalled(pid, sent)
        time.sleep(world.draw.uniform(0, 0.5))


def lock_the_database(world: World) -> None:
    with closing(sqlite3.connect(world.path, timeout=DEADLINE_SECONDS, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(world.draw.choice([0.1, 1, 6]))  # longer than is waited for, at times
        other.execute("ROLLBACK")


def let_no_file_grow(world: World) -> None:
    """As on a disk that breaks: a write fails half way."""
    limits = resource.prlimit(world.process.pid, resource.RLIMIT_FSIZE)
    most = Path(f"{world.path}-wal").stat().st_size if Path(f"{world.path}-wal").exists() else 0
    resource.prlimit(world.process.pid, resource.RLIMIT_FSIZE, (most + world.draw.randrange(10_000), limits[1]))
    time.sleep(world.draw.uniform(0.1, 0.5))
    resource.prlimit(world.process.pid, resource.RLIMIT_FSIZE, limits)


def drop_connections(world: World) -> None:
    for _ in range(50):
        with suppress(OSError), connected(world) as raw:
            sent = b'POST /models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"a": 1}\r\n'
            raw.sendall(sent[: world.draw.randrange(len(sent))])


def drip(world: World) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connected(world)).sendall(b"GET /models HTTP/1.1\r\nX: ")
        time.sleep(1.1)


def flood(world: World) -> None:
    """Forwards by many at once."""
    there = [*world.known.names]
    model = world.draw.choice(there) if there else "mdl_0"

    def ask() -> None:
        with httpx.Client(base_url=world.url, timeout=DEADLINE_SECONDS) as http:
            for _ in range(20):
                answer = http.post(f"/models/{model}/forward", json={"inputs": [[0.0] * 16] * 100})
                assert answer.status_code in (200, 404, 503), answer.text

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()


FAULTS = {
    "F1 kill": kill,
    "F5 no file grows": let_no_file_grow,
    "F5 database locked": lock_the_database,
    "F6 a worker is killed": kill_a_worker,
    "F6 the nursery is killed": kill_the_nursery,
    "F8 SIGTERM": end,
    "F9 SIGTERM twice": end_twice,
    "F10 clients that drip": drip,
    "F11 clients that leave": drop_connections,
    "F13 all processes stop for a moment": stop_for_a_moment,
    "F16 a flood of forwards": flood,
}


def signalled(pid: int, sent: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, sent)


def connected(world: World) -> socket.socket:
    host, port = world.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), DEADLINE_SECONDS)


def run(faults: Iterable[str], seed: int, folder: Path) -> World:
    """Those faults one after another, in a world that is used already; fails at the first loss."""
    world = World(folder, seed)
    try:
        world.used_while(lambda world: until(lambda: bool(world.known.jobs)))
        for name in faults:
            world.used_while(FAULTS[name])
            world.quiet()
        kill(world)
        world.quiet()
    finally:
        world.close()
    return world


def drawn(seconds: float, seed: int, told: Callable[[str, float], None]) -> Iterator[str]:
    """Faults for so long, each told with the seconds that went before it."""
    draw, began = random.Random(seed), time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        name = draw.choice([*FAULTS])
        told(name, passed)
        yield name


def main(seconds: float, seed: int) -> int:
    with tempfile.TemporaryDirectory() as place, Progress() as progress:
        task, had = progress.add_task(f"seed {seed}", total=seconds), list[str]()

        def told(name: str, passed: float) -> None:
            had.append(name)
            progress.update(task, completed=passed, description=name)

        try:
            known = run(drawn(seconds, seed, told), seed, Path(place)).known
        except AssertionError as loss:
            progress.stop()
            print(f"seed {seed}: LOST at fault {len(had)}, {had[-1:]}: {str(loss)[:2_000]}")
            raise SystemExit(1) from loss
    print(f"seed {seed}: {len(had)} faults, {len(known.names)} models and {len(known.jobs)} jobs, and nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)))
