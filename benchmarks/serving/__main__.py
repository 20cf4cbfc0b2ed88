"""What a user of the service waits for: the start, a forward, a default training. `make bench` runs it.

Servers run on one core and are asked from the other, over keep-alive connections that each have one request under way.
They take turns, and the median of the turns' ratios counts, since these machines are shared.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import uvloop

from benchmarks.load import CONNECTIONS, Request, load, saturated
from benchmarks.servers import pin, serve, started
from benchmarks.serving import adapters
from benchmarks.serving.peers import PEERS
from service.cli.serve import READY

SECONDS = 1
TURNS = 5
TRAININGS = 100
STARTS = 3
MANY_REQUESTS = 100_000

Row = tuple[str, str]


def start_times() -> tuple[float, float]:
    """Seconds from the command until it answers, and until it is ready to train too."""
    at = time.perf_counter()
    with started(serve(), READY) as url:
        answers = time.perf_counter() - at
        ready(url)
        return answers, time.perf_counter() - at


def ready(url: str) -> None:
    """Wait until the workers are up: until then they take their share of the core."""
    while httpx.get(f"{url}/readyz").is_error:
        time.sleep(0.01)


def beside_peers(url: str, path: str) -> Iterator[Row]:
    """Forwards of some rows, ours and theirs in turns."""
    with ExitStack() as stack:
        peers = {name: stack.enter_context(start()) for name, start in PEERS.items()}
        for n in (1, 32, 256):
            x = np.random.default_rng(0).standard_normal((n, 64)).astype(np.float32)
            ours = url, Request(path, json.dumps({"inputs": x.tolist()}).encode())
            yield _row(f"JSON, {n} row{'s' * (n > 1)}", ours, {name: ask(x.tolist()) for name, ask in peers.items()})
        for n in (32, 256):
            x = np.random.default_rng(0).standard_normal((n, 64)).astype(np.float32)
            ours = url, Request(path, x.tobytes(), "application/octet-stream")
            readers = list(peers.items())[:2]
            others = {
                name: (ask([])[0], Request("/models/x/forward", x.tobytes(), "application/octet-stream"))
                for name, ask in readers
            }
            yield _row(f"octet-stream, {n} rows", ours, others)


def _row(what: str, ours: tuple[str, Request], others: dict[str, tuple[str, Request]]) -> Row:
    turns = [
        {name: saturated(*asked, SECONDS) for name, asked in {"ours": ours, **others}.items()} for _ in range(TURNS)
    ]
    ratios = {name: statistics.median(turn["ours"] / turn[name] for turn in turns) for name in others}
    figures = ", ".join(f"{ratio:.2f} × {name}" for name, ratio in ratios.items())
    return (
        f"forward 64 → 10, {what}, {CONNECTIONS} connections",
        f"{statistics.median(turn['ours'] for turn in turns):,.0f} requests/s; {figures}",
    )


def beside_a_training(http: httpx.Client, url: str, model_id: str, request: Request) -> Row:
    """The 99th percentile at half the saturated rate, while a training keeps a worker busy and without one."""
    rate = uvloop.run(load(url, request)).rate / 2

    def p99() -> float:
        return uvloop.run(load(url, request, seconds=3, rate=rate)).quantile(0.99)

    other = http.post("/models", json={"in_features": 64, "out_features": 10}).json()["id"]
    endless = {"epochs": 10_000, "batch_size": 10, "data": {"kind": "random", "n_samples": 10_000}}
    turns = []
    for _ in range(3):
        idle = p99()
        job = http.post(f"/models/{other}/train", json=endless).json()["id"]
        busy = p99()
        http.post(f"/jobs/{job}/cancel")
        turns.append((busy / idle, idle, busy))
    ratio, idle, busy = sorted(turns)[1]
    return (
        f"p99 of that with one row at half the rate ({rate:,.0f}/s), beside a training on the same core ÷ idle",
        f"{busy:.1f} ms ÷ {idle:.1f} ms = {ratio:.1f}",
    )


def after_many(url: str, request: Request, pid: int) -> Row:
    """How much memory the server has after many requests beside what it had after the first tenth of them."""
    answered, first = 0.0, 0
    while answered < MANY_REQUESTS:
        answered += saturated(url, request, 2) * 2
        if not first and answered >= MANY_REQUESTS / 10:
            first = adapters.resident(pid)
    grown = (adapters.resident(pid) - first) / 2**20
    return f"memory of the server after {MANY_REQUESTS:,} more forwards", f"{grown:+.1f} MiB of {first / 2**20:,.0f}"


def training(http: httpx.Client, model_id: str) -> Row:
    """Milliseconds of each of many default trainings, as a client that waits sees them."""
    times = []
    for _ in range(TRAININGS):
        answer = http.post(f"/models/{model_id}/train", headers={"Prefer": "wait=30"})
        assert answer.json()["state"] == "succeeded"
        times.append(answer.elapsed.total_seconds() * 1_000)
    return (
        "default training, `Prefer: wait`, HTTP included",
        f"median {statistics.median(times):.1f} ms, p95 {sorted(times)[int(0.95 * len(times))]:.1f} ms",
    )


def stages() -> Row:
    """Where the time of a forward goes, by a stopwatch inside the server."""
    command = [sys.executable, "-m", "benchmarks.serving.stages"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pin(first=True)) as process:
        assert process.stdout is not None
        _, url, model_id = process.stdout.readline().split()
        x = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
        request = Request(f"/models/{model_id}/forward", json.dumps({"inputs": x.tolist()}).encode())
        rate = saturated(url, request, 3)
        process.terminate()
        spent = json.loads(process.stdout.readline())
    each = {name: 1e6 * spent[name] / spent["count"] for name in spent}
    door = each["door"] - each["parse"] - each["product"] - each["encode"]
    shares = {
        "read and write (uvicorn)": 1e6 / rate - each["door"],
        "route, limits, metrics": door,
        "parse": each["parse"],
        "product": each["product"],
        "encode": each["encode"],
    }
    figures = ", ".join(f"{name} {part * rate / 1e4:.0f} %" for name, part in shares.items())
    return "where the time of a JSON forward of one row goes", figures


def measured() -> Iterator[Row]:
    """Everything, row by row."""
    answers, until_ready = map(min, zip(*(start_times() for _ in range(STARTS)), strict=True))
    yield "`lora serve` until it answers; until `/readyz` is 200", f"{answers:.2f} s; {until_ready:.2f} s"
    pin(first=False)
    with started(serve(), READY) as url, httpx.Client(base_url=url, timeout=60) as http:
        ready(url)
        model_id = http.post("/models", json={"in_features": 64, "out_features": 10}).json()["id"]
        path = f"/models/{model_id}/forward"
        one = Request(path, json.dumps({"inputs": [[0.5] * 64]}).encode())
        yield from beside_peers(url, path)
        yield beside_a_training(http, url, model_id, one)
        yield after_many(url, one, server_of())
        yield training(http, model_id)
    yield stages()
    yield from adapters.rows()


def server_of() -> int:
    """The server's process: a child of this one."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return next(int(pid) for pid in children if "serve" in Path(f"/proc/{pid}/cmdline").read_text().split("\0"))


def main() -> None:
    """Measure and print a table in Markdown, each row as it is known."""
    print("| what | measured |\n| --- | --- |")
    for what, figure in measured():
        print(f"| {what} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
