"""What a GPU adds and what it costs, by the size of the layer: `python -m benchmarks.device`, where there is one."""

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from benchmarks.servers import serve
from service.cli.serve import READY
from service.codecs import npy

FORWARDS = 50
TRAININGS = 3
SHAPES = ((64, 10, 4), (1024, 1024, 8), (4096, 4096, 16))
RANDOM = {"kind": "random", "n_samples": 1_000}
PLANS: dict[str, dict[str, Any]] = {
    "100 epochs by moments": {"epochs": 100, "data": RANDOM},
    "5 epochs in batches of 64": {"epochs": 5, "batch_size": 64, "data": RANDOM},
    "5 epochs of huber on 4,000 rows": {"epochs": 5, "loss": "huber", "data": {**RANDOM, "n_samples": 4_000}},
}


@contextmanager
def server(device: str) -> Iterator[httpx.Client]:
    """A client of a server on a device, which is ready to train and is killed at the end."""
    environment = {**os.environ, "LORA_DEVICE": device}
    process = subprocess.Popen(serve(), stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = next(line for line in process.stdout if line.startswith(READY)).removeprefix(READY).strip()
        with httpx.Client(base_url=url, timeout=90) as http:
            while http.get("/readyz").is_error:
                time.sleep(0.01)
            yield http
    finally:
        process.kill()
        process.wait()


def measured(http: httpx.Client, in_features: int, out_features: int, rank: int) -> dict[str, float]:
    """Milliseconds of each thing that a user waits for; medians, after a first time that does not count."""
    asked = {"in_features": in_features, "out_features": out_features, "rank": rank, "seed": 0}
    model, took = http.post("/models", json=asked).json()["id"], {}
    for rows in (1, 256):
        x = npy.dump(np.random.default_rng(0).standard_normal((rows, in_features), dtype=np.float32))
        headers, times = {"Content-Type": npy.NPY.media_type}, []
        for _ in range(1 + FORWARDS):
            began = time.perf_counter()
            http.post(f"/models/{model}/forward", content=x, headers=headers).raise_for_status()
            times.append(1_000 * (time.perf_counter() - began))
        took[f"a forward of {rows} rows"] = statistics.median(times[1:])
    for name, plan in PLANS.items():
        times = []
        for _ in range(1 + TRAININGS):
            job = http.post(f"/models/{model}/train", json=plan, headers={"Prefer": "wait=60"}).json()
            assert job["state"] == "succeeded", job
            times.append(1_000 * job["duration_seconds"])
        took[name] = statistics.median(times[1:])
    return took


def main() -> None:
    """Print a row for each shape and each thing: on the CPU, on the GPU, and the one by the other."""
    found: list[dict[str, dict[str, float]]] = []
    for device in ("cpu", "cuda"):
        with server(device) as http:
            found.append({f"{i} → {o}, rank {r}": measured(http, i, o, r) for i, o, r in SHAPES})
    cpu, cuda = found
    print("| layer | what | CPU, ms | GPU, ms | CPU ÷ GPU |\n|---|---|---|---|---|")
    for shape, times in cpu.items():
        for what, there in times.items():
            here = cuda[shape][what]
            print(f"| {shape} | {what} | {there:.1f} | {here:.1f} | {there / here:.2g} |")


if __name__ == "__main__":
    main()
