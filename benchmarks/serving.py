"""What a user of the main job waits for: the start, a forward, a default training. `make bench` runs it.

The forward is compared, in the same run, with a plain FastAPI route that parses the same body with pydantic and does
the same arithmetic, which is what one would write in ten lines.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from benchmarks.servers import connected, pin, serve, started
from service.cli.serve import READY

CONNECTIONS = 16
SECONDS = 4.0
TRAININGS = 100
STARTS = 3

PLAIN = """
import torch, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

W, b, A, B = torch.randn(10, 64), torch.randn(10), torch.randn(4, 64), torch.randn(10, 4)
torch.set_num_threads(1)
app = FastAPI()

class Inputs(BaseModel):
    inputs: list[list[float]]

@app.post("/forward")
async def forward(body: Inputs):
    x = torch.tensor(body.inputs)
    with torch.inference_mode():
        y = x @ W.T + b + (x @ A.T) @ B.T
    return {"outputs": y.tolist()}

config = uvicorn.Config(app, port=0, log_level="warning", access_log=False)
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("READY", "http://127.0.0.1:%d" % self.servers[0].sockets[0].getsockname()[1], flush=True)
Server(config).run()
"""


async def load(url: str, path: str, body: bytes) -> tuple[float, float]:
    """Requests per second and the median latency in ms over keep-alive connections, each with one under way."""
    times: list[float] = []
    deadline = time.perf_counter() + SECONDS

    async def client() -> None:
        async with connected(url) as post:
            while (at := time.perf_counter()) < deadline:
                await post(path, body)
                times.append(time.perf_counter() - at)

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return len(times) / SECONDS, statistics.median(times) * 1_000


def best(measure: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """The better of three runs: on a shared machine the slower ones measure the neighbours."""
    return max(measure() for _ in range(3))


def start_times() -> tuple[float, float]:
    """Seconds from the command until it answers, and until it is ready to train too."""
    at = time.perf_counter()
    with started(serve(), READY) as url:
        answers = time.perf_counter() - at
        while httpx.get(f"{url}/readyz").is_error:
            time.sleep(0.01)
        return answers, time.perf_counter() - at


def training(http: httpx.Client, model_id: str) -> list[float]:
    """Milliseconds of each of many default trainings, as a client that waits sees them."""
    times = []
    for _ in range(TRAININGS):
        answer = http.post(f"/models/{model_id}/train", headers={"Prefer": "wait=30"})
        assert answer.json()["state"] == "succeeded"
        times.append(answer.elapsed.total_seconds() * 1_000)
    return times


def main() -> None:
    """Measure and print a table in Markdown."""
    import uvloop

    answers, ready = map(min, zip(*(start_times() for _ in range(STARTS)), strict=True))
    rows = [("`lora serve` until it answers; until `/readyz` is 200", f"{answers:.2f} s; {ready:.2f} s")]
    pin(first=False)
    bodies: dict[int, Any] = {n: json.dumps({"inputs": [[0.5] * 64] * n}).encode() for n in (1, 32)}
    with (
        started([sys.executable, "-c", PLAIN], "READY") as plain,
        started(serve(), READY) as url,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        model_id = http.post("/models", json={"in_features": 64, "out_features": 10}).json()["id"]
        for n, body in bodies.items():
            ours, latency = best(lambda body=body: uvloop.run(load(url, f"/models/{model_id}/forward", body)))
            theirs, _ = best(lambda body=body: uvloop.run(load(plain, "/forward", body)))
            rows.append(
                (
                    f"forward 64 → 10, JSON, {n} row{'s' * (n > 1)}, {CONNECTIONS} connections, one core",
                    f"{ours:,.0f} requests/s, {ours / theirs:.2f} × a plain FastAPI route, p50 {latency:.1f} ms",
                )
            )
        times = training(http, model_id)
        rows.append(
            (
                "default training, `Prefer: wait`, HTTP included",
                f"median {statistics.median(times):.1f} ms, p95 {sorted(times)[int(0.95 * len(times))]:.1f} ms",
            )
        )
    print("| what | measured |\n| --- | --- |")
    for what, figure in rows:
        print(f"| {what} | {figure} |")


if __name__ == "__main__":
    main()
