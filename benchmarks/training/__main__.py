"""What a training costs beside the loops of `loops.py`, each figure a ratio of one run on one thread.

Run by `make bench`; a reference and ours take turns, and the best of a few turns counts, because on a shared machine
the slower ones measure the neighbours.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import httpx
import torch

from benchmarks.servers import connected, serve, started
from benchmarks.training.loops import SeedLayer, full_batches, minibatches, peft_layer
from service.cli.serve import READY
from service.lora import init
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.training import datasets
from service.training.fit import fit
from service.training.fitted import fitted
from service.training.lesson import Lesson
from service.training.plan import Plan
from service.training.sources import Digits, Random

TURNS = 3
SMALL, WIDE = Spec(in_features=64, out_features=10, init="normal"), Spec(in_features=384, out_features=384, rank=8)
DEFAULT = Spec(in_features=64, out_features=10)
CONNECTIONS, JOBS = 8, 100


def lesson(spec: Spec, plan: Plan, seed: int = 0) -> Lesson:
    """A run on a fresh layer, its rows drawn."""
    weight, bias = init.frozen(spec, seed)
    layer = LoRALinear(weight, bias, *init.start(spec, seed, weight), spec.scaling)
    plan = fitted(plan, spec, seed, 2**33)
    return Lesson(layer, plan, datasets.load(plan.data, layer, {}))


def seconds(work: Callable[[], Any]) -> float:
    at = time.perf_counter()
    work()
    return time.perf_counter() - at


def best_ratio(theirs: Callable[[], float], ours: Callable[[], float]) -> tuple[float, float]:
    """How many times as long theirs takes, and ours in seconds."""
    pairs = [(theirs(), ours()) for _ in range(TURNS)]
    mine = min(own for _, own in pairs)
    return min(other for other, _ in pairs) / mine, mine


def trained(lessons: list[Lesson]) -> None:
    for _ in fit(lessons):
        pass


def against_seed(spec: Spec, n: int, epochs: int, reference_epochs: int) -> tuple[float, float]:
    """Full-batch mse with Adam, the pass over the data included; seconds of an epoch, and the ratio."""
    x, y = torch.randn(n, spec.in_features), torch.randn(n, spec.out_features)
    layer = SeedLayer(spec.in_features, spec.out_features, spec.rank)
    run = lesson(spec, Plan(epochs=epochs, data=Random(n_samples=n)))
    ratio, own = best_ratio(
        lambda: seconds(lambda: full_batches(layer, x, y, reference_epochs)) / reference_epochs * epochs,
        lambda: seconds(lambda: trained([run])),
    )
    return ratio, own / epochs


def epoch_seconds(n: int) -> float:
    """Of many epochs on n rows, what each of them costs beside the pass over the data."""
    few, many = (lesson(SMALL, Plan(epochs=epochs, data=Random(n_samples=n))) for epochs in (50, 1_050))
    return min(seconds(lambda: trained([many])) - seconds(lambda: trained([few])) for _ in range(TURNS)) / 1_000


def stacked() -> tuple[float, float]:
    """A hundred default jobs of a hundred epochs, data and all, against a hundred times the seed's loop."""
    return best_ratio(
        hundred_loops,
        lambda: seconds(lambda: trained([lesson(SMALL, Plan(epochs=100), seed) for seed in range(JOBS)])),
    )


def digits() -> tuple[float, float]:
    """Minibatches of 64 of the digits under cross entropy; seconds of an epoch, and the ratio to PEFT's."""
    run = lesson(
        DEFAULT,
        Plan(epochs=20, batch_size=64, loss="cross_entropy", data=Digits()),
    )
    rows = run.rows
    assert rows is not None
    layer = peft_layer(64, 10, 4)
    ratio, own = best_ratio(
        lambda: 4 * seconds(lambda: minibatches(layer, rows.x, rows.y, 5, 64)),
        lambda: seconds(lambda: trained([run])),
    )
    return ratio, own / 20


def over_http(url: str) -> tuple[float, float]:
    """The hundred jobs over eight kept connections, from the first POST to the last `finished_at`; the ratio too."""
    with httpx.Client(base_url=url, timeout=60) as http:
        size = {"in_features": 64, "out_features": 10, "init": "normal"}
        models = [http.post("/models", json=size).json()["id"] for _ in range(JOBS)]

        async def posted() -> tuple[float, list[str]]:
            """When the first POST left, and the jobs."""
            jobs: list[str] = []
            async with AsyncExitStack() as stack:
                posts = [await stack.enter_async_context(connected(url)) for _ in range(CONNECTIONS)]

                async def client(number: int) -> None:
                    for model in models[number::CONNECTIONS]:
                        job = await posts[number](f"/models/{model}/train", b'{"epochs":100}')
                        jobs.append(json.loads(job)["id"])

                at = time.time()
                await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
            return at, jobs

        def ours() -> float:
            at, jobs = asyncio.run(posted())
            return max(finished(http, job) for job in jobs) - at

        return best_ratio(hundred_loops, ours)


def finished(http: httpx.Client, job: str) -> float:
    """When a job ended, in seconds since 1970."""
    while (told := http.get(f"/jobs/{job}").json())["finished_at"] is None:
        time.sleep(0.01)
    assert told["state"] == "succeeded", told
    return datetime.fromisoformat(told["finished_at"]).timestamp()


def hundred_loops() -> float:
    """The seconds of a hundred of the seed's loops with their data, of which a fifth is run."""
    return JOBS * statistics.mean(seconds(one_loop) for _ in range(20))


def one_loop() -> None:
    full_batches(SeedLayer(64, 10, 4), torch.randn(1_000, 64), torch.randn(1_000, 10), 100)


def waited(url: str) -> tuple[float, float]:
    """One default train that is waited for: median milliseconds of the call, and of the job in it."""
    with httpx.Client(base_url=url, timeout=60) as http:
        model = http.post("/models", json={"in_features": 64, "out_features": 10}).json()["id"]
        calls, jobs = [], []
        for _ in range(100):
            answer = http.post(f"/models/{model}/train", headers={"Prefer": "wait=30"})
            calls.append(answer.elapsed.total_seconds() * 1_000)
            jobs.append(answer.json()["duration_seconds"] * 1_000)
        return statistics.median(calls), statistics.median(jobs)


def rows(url: str) -> list[tuple[str, str]]:
    """The table: what is done, and what it costs."""
    torch.set_num_threads(1)
    table = []
    for label, spec, n, epochs, reference_epochs in (
        ("1,000 × 64→10, r 4, 500 epochs", SMALL, 1_000, 500, 500),
        ("100,000 × 64→10, r 4, 100 epochs", SMALL, 100_000, 100, 10),
        ("10,000 × 384→384, r 8, 100 epochs", WIDE, 10_000, 100, 10),
    ):
        ratio, own = against_seed(spec, n, epochs, reference_epochs)
        table.append((label, f"{ratio:.1f} × the autograd loop; {own * 1e6:,.0f} µs an epoch, all included"))
    table.append(("an epoch on 100,000 rows ÷ on 1,000", f"{epoch_seconds(100_000) / epoch_seconds(1_000):.2f}"))
    ratio, own = stacked()
    table.append(("100 default jobs of 100 epochs in one stack", f"{ratio:.1f} × the autograd loop; {own:.2f} s"))
    ratio, own = over_http(url)
    table.append((f"the same over HTTP, {CONNECTIONS} connections", f"{ratio:.1f} × the autograd loop; {own:.2f} s"))
    ratio, own = digits()
    table.append(("digits, cross entropy, batches of 64", f"{ratio:.1f} × PEFT; {own * 1e3:.2f} ms an epoch"))
    call, job = waited(url)
    alone = statistics.median(seconds(lambda: trained([lesson(DEFAULT, Plan())])) for _ in range(50)) * 1e3
    figure = f"{call:.1f} ms, of which the job {job:.1f} ms, and in it the training {alone:.1f} ms"
    table.append(("default train, HTTP, `Prefer: wait`, median", figure))
    return table


def main() -> None:
    """Measure and print a table in Markdown."""
    with started(serve(), READY) as url:
        print("| training | |\n|---|---|")
        for what, figure in rows(url):
            print(f"| {what} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
