"""What it costs that several servers share a PostgreSQL: the lag of a version, the CPU of a forward, memory.

`python -m benchmarks.replicas` starts a PostgreSQL of its own, from the programs of Debian. Servers and who asks them
share all cores; the CPU of a forward is that of the servers alone, in turns with one server.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from benchmarks.durable import fill
from benchmarks.load import Request, saturated
from benchmarks.servers import serve
from service.cli.serve import READY
from service.models.shared import SharedStore
from tests.postgres import postgres

VERSIONS = 500
TURNS = 5
SECONDS = 2
MODELS = 10_000
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SIZES = {"in_features": 64, "out_features": 10}

Row = tuple[str, str]


@contextmanager
def server(database: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """The URL of a server, or of several processes, and its process id."""
    environment = {**os.environ, "LORA_DATABASE_URL": database}
    process = subprocess.Popen([*serve(), *arguments], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield next(line for line in process.stdout if line.startswith(READY)).removeprefix(READY).strip(), process.pid
    finally:
        process.terminate()
        process.wait(30)


def lag(database: str) -> Row:
    """From the answer to a publication on one server until another shows it to whoever asks."""
    with ExitStack() as stack:
        urls = [stack.enter_context(server(database))[0] for _ in range(2)]
        one, other = (stack.enter_context(httpx.Client(base_url=url, timeout=60)) for url in urls)
        model = one.post("/models", json=SIZES).raise_for_status().json()["id"]
        other.get(f"/models/{model}").raise_for_status()
        lags = []
        for version in range(1, VERSIONS + 1):
            one.post(f"/models/{model}/rollback", json={"version": version - 1}).raise_for_status()
            at = time.perf_counter()
            while other.get(f"/models/{model}").json()["version"] < version:
                pass
            lags.append(time.perf_counter() - at)
    lags.sort()
    return (
        f"from a publication on one server until another shows it, {VERSIONS} times: median; p99",
        f"{1_000 * statistics.median(lags):.1f} ms; {1_000 * lags[int(0.99 * len(lags))]:.1f} ms",
    )


def forwards(database: str) -> Iterator[Row]:
    """The CPU of a forward and forwards per second, of one process and of two."""
    with ExitStack() as stack:
        (one, first), (two, parent) = (
            stack.enter_context(server(database, "--processes", number)) for number in ("1", "2")
        )
        model = httpx.post(f"{one}/models", json=SIZES).raise_for_status().json()["id"]
        request = Request(f"/models/{model}/forward", json.dumps({"inputs": [[0.5] * 64]}).encode())
        ratios, rates = [], []
        for _ in range(TURNS):
            (alone, rate), (several, both) = (
                used(url, request, pids) for url, pids in ((one, [first]), (two, children(parent)))
            )
            ratios.append(several / alone)
            rates.append(both / rate)
    yield "CPU of a forward with two processes ÷ with one", f"{statistics.median(ratios):.2f}"
    yield f"forwards per second of two ÷ of one, {os.cpu_count()} cores for all", f"{statistics.median(rates):.2f}"


def used(url: str, request: Request, pids: list[int]) -> tuple[float, float]:
    """The seconds of a core that an answer took of these processes, and answers per second."""
    before = sum(map(cpu, pids))
    rate = saturated(url, request, SECONDS)
    return (sum(map(cpu, pids)) - before) / (rate * SECONDS), rate


def memory(database: str) -> Row:
    """The memory of each of two servers beside that of one, all with the same models."""
    fill(SharedStore(database), MODELS)
    with server(database) as (_, alone):
        before = resident(alone)
    with server(database) as (_, first), server(database) as (_, second):
        each = [resident(pid) for pid in (first, second)]
    return (
        f"memory of each of two servers with {MODELS:,} models ÷ of one alone",
        ", ".join(f"{size / before:.2f}" for size in each),
    )


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu(pid: int) -> float:
    """The seconds of a core that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> int:
    return PAGE * int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def main() -> None:
    """Print the rows."""
    print("| several servers | |", "|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as folder, postgres(Path(folder)) as database:
        for row in (lag(database), *forwards(database), memory(database)):
            print("| {} | {} |".format(*row), flush=True)


if __name__ == "__main__":
    main()
