"""The real service on a real socket: in a thread of the tests, or as the process a user starts."""

import atexit
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from service.api.app import create_app, create_engine
from service.api.server import server_of
from service.cli.serve import READY
from service.engine import Engine
from service.jobs.nursery import Nursery, of_workers
from service.settings import load

DEADLINE_SECONDS = 60
CLIENT_SECONDS = 90  # more than the 60 for which a train call may wait


@cache
def nursery() -> Nursery:
    """Where workers come from, for all tests: each of its own would import torch."""
    made = of_workers(1)
    atexit.register(made.stop)
    return made


@dataclass(frozen=True)
class Service:
    """A running service: where it listens, and the engine behind it."""

    url: str
    engine: Engine
    http: httpx.Client

    def wait_for_workers(self) -> None:
        """Wait until every worker process is up."""
        until(lambda: self.engine.workers.ready == len(self.engine.workers))


@contextmanager
def in_thread(**settings: Any) -> Iterator[Service]:
    """The service in a thread of this process; settings differ as given."""
    chosen = load(
        **{"port": 0, "workers": 1, "device": os.environ.get("TEST_DEVICE", "cpu"), "grace_seconds": 5, **settings}
    )
    engine = create_engine(chosen, nursery())
    urls: queue.Queue[str] = queue.Queue()
    server = server_of(create_app(chosen, engine), chosen, urls.put, engine.drain)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        url = urls.get(timeout=DEADLINE_SECONDS)
        with httpx.Client(base_url=url, timeout=CLIENT_SECONDS) as http:
            yield Service(url, engine, http)
    finally:
        engine.drain()
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


@contextmanager
def as_process(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`lora serve` on a free port as a process of its own, and its URL; killed at the end if it still runs."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LORA_")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**clean, **environment}
    )
    late = threading.Timer(DEADLINE_SECONDS, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        ready = next((line for line in process.stdout if line.startswith(READY)), None)
        late.cancel()
        assert ready is not None, "the server ended, or was late, before it was ready"
        yield process, ready.removeprefix(READY).strip()
    finally:
        late.cancel()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def meanwhile(works: Sequence[Callable[[threading.Event], None]]) -> Iterator[None]:
    """Have each of these work in a thread until the event is set; what goes wrong there goes wrong here."""
    over, wrong = threading.Event(), []

    def run(work: Callable[[threading.Event], None]) -> None:
        try:
            work(over)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if wrong:
        raise wrong[0]


def until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until a condition holds; fails at the deadline.

    What takes long is looked at less often: each look takes time from what is waited for, where both share two cores.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds, "the deadline has passed"
        time.sleep(min(0.005 + waited / 20, 0.1))


def children(pid: int) -> list[int]:
    """The processes that the threads of a process have started."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended meanwhile
            found += [int(child) for child in listed.read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    return [pid for child in children(pid) for pid in (child, *descendants(child))]


def gone(pid: int) -> bool:
    """Whether a process is no more, or only waits for somebody to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
