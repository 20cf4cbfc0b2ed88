"""Ten thousand models in one durable service: lists, forwards, memory, metrics, and the next start.

`python -m tests.faults.many 10000` does so in full; the tests do it with a thousand.
"""

import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.running import as_process

SIZES = {"in_features": 64, "out_features": 64, "rank": 4}
BYTES = 4 * 4 * (64 + 64)  # of A and B
LOOKS = 100


@dataclass
class Many:
    """What so many models cost."""

    count: int
    list_p99_seconds: float
    forward_p99_seconds: float
    bytes_each: float  # of memory beyond that of the tensors
    metrics_growth: int  # in lines
    start_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.count} models: a page of the list in {self.list_p99_seconds * 1_000:.1f} ms (p99), a forward in "
            f"{self.forward_p99_seconds * 1_000:.1f} ms (p99), {self.bytes_each:.0f} bytes each beside the tensors, "
            f"{self.metrics_growth} more lines of metrics, started again in {self.start_seconds:.1f} s"
        )


def resident(pid: int) -> int:
    """The bytes of memory that a process has now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].removesuffix("kB")) * 1_024


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99) - 1]


def timed(http: httpx.Client, method: str, path: str, **request: object) -> float:
    at = time.perf_counter()
    http.request(method, path, **request).raise_for_status()  # type: ignore[arg-type]
    return time.perf_counter() - at


def create(url: str, base: str, ids: list[str], left: int) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(left):
            ids.append(http.post("/models", json={"base_id": base, "rank": SIZES["rank"]}).json()["id"])


def run(count: int, folder: Path, askers: int = 4) -> Many:
    """Make so many models on one base, use them, and start anew."""
    settings = {"LORA_DATABASE_URL": f"sqlite:///{folder}/lora.db", "LORA_MAX_MODELS": str(count + 10)}
    ids: list[str] = []
    draw = random.Random(count)
    with as_process(**settings) as (process, url), httpx.Client(base_url=url, timeout=60) as http:
        base = http.post("/models", json=SIZES).json()["base_id"]
        create(url, base, [], 1)
        before, lines = resident(process.pid), len(http.get("/metrics").text.splitlines())
        threads = [threading.Thread(target=create, args=(url, base, ids, count // askers)) for _ in range(askers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        forwards = [
            timed(http, "POST", f"/models/{draw.choice(ids)}/forward", json={"inputs": [0.5] * 64})
            for _ in range(LOOKS)
        ]
        pages = [timed(http, "GET", "/models") for _ in range(LOOKS)]
        pages += [timed(http, "GET", "/models?order=desc&limit=50&search=nobody") for _ in range(3)]
        more = len(http.get("/metrics").text.splitlines()) - lines
        each = (resident(process.pid) - before) / len(ids) - BYTES
        process.kill()
    at = time.monotonic()
    with as_process(**settings) as (_, url):
        took = time.monotonic() - at
        assert httpx.get(f"{url}/models/{ids[-1]}").status_code == 200
    return Many(len(ids), p99(pages[:LOOKS]), p99(forwards), each, more, took)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(run(int(sys.argv[1]), Path(place)))
