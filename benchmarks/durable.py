"""What a database costs: a start with many models, a page of the list, a forward, a training. `make bench` runs it.

Servers with and without a database take turns, and the median of the turns' ratios counts.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import httpx

from benchmarks.load import Request, saturated
from benchmarks.servers import pin, serve
from service.cli.serve import READY
from service.lora.init import frozen, start
from service.lora.spec import Spec
from service.models.base import Base
from service.models.budget import Budget
from service.models.model import LoadedModel
from service.models.registry import Registry
from service.models.sql import SqlStore
from service.models.store import Store

TURNS = 5
TRAININGS = 40
PAGES = 300
CORES = os.sched_getaffinity(0)
SPEC = Spec(in_features=64, out_features=10)

Row = tuple[str, str]


@contextmanager
def server(database: str | None = None, *, pinned: bool = True) -> Iterator[str]:
    """The URL of a server, on the first core or on all of them, which is killed at the end."""
    environment = {**os.environ, **({"LORA_DATABASE_URL": database} if database else {})}
    place = (lambda: pin(first=True)) if pinned else (lambda: os.sched_setaffinity(0, CORES))
    process = subprocess.Popen(serve(), stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=place)
    try:
        assert process.stdout is not None
        yield next(line for line in process.stdout if line.startswith(READY)).removeprefix(READY).strip()
    finally:
        process.kill()
        process.wait()


def fill(store: Store, models: int) -> None:
    """Put so many models on one base into a database, and close it."""
    registry, base, at = Registry(2 * models, Budget(2**40), store), Base.of(*frozen(SPEC, 0)), datetime.now(UTC)
    for number in range(models):
        A, B = start(SPEC, number, base.weight)
        known: dict[str, Any] = {"id": f"mdl_{number:026}", "seed": number, "created_at": at, "updated_at": at}
        registry.add(LoadedModel(**known, spec=SPEC, base_ids=(base.id,), bases=(base,), adapter={"A": A, "B": B}))
    store.close()


def with_many_models(folder: Path, models: int) -> Iterator[Row]:
    """The start after a kill, and a page of the list."""
    database = f"sqlite:///{folder}/{models}.db"
    fill(SqlStore(database), models)
    with server(database):
        pass  # killed, with what it had not put away
    began = time.perf_counter()
    with server(database, pinned=False) as url, httpx.Client(base_url=url, timeout=60) as http:
        http.get("/models")
        answers = time.perf_counter() - began
        while http.get("/readyz").is_error:
            time.sleep(0.01)
        trains = time.perf_counter() - began
        yield (
            f"a start after a kill with {models:,} models, until it answers",
            f"{answers:.2f} s, until it trains {trains:.2f} s",
        )
        pages, cursor = [], None
        for _ in range(PAGES):
            began = time.perf_counter()
            page = http.get("/models", params={"limit": 50, **({"cursor": cursor} if cursor else {})}).json()
            pages.append(time.perf_counter() - began)
            cursor = page["next_cursor"] if random.random() < 0.98 else None
        p99 = 1_000 * sorted(pages)[int(0.99 * PAGES)]
        yield f"a page of 50 of {models:,} models, p99", f"{p99:.1f} ms"


def alone() -> Iterator[Row]:
    """What a start spends most of its time on."""
    times = []
    for _ in range(TURNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        times.append(time.perf_counter() - began)
    yield "`import torch` by itself", f"{statistics.median(times):.2f} s"


def beside_memory(folder: Path) -> Iterator[Row]:
    """A forward and a training with a database, by those without one."""
    with ExitStack() as stack:
        urls = [stack.enter_context(server()), stack.enter_context(server(f"sqlite:///{folder}/beside.db"))]
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=60)) for url in urls]
        models = [http.post("/models", json={"in_features": 64, "out_features": 10}).json()["id"] for http in clients]
        for http in clients:
            while http.get("/readyz").is_error:
                time.sleep(0.01)
        body = json.dumps({"inputs": [[0.5] * 64]}).encode()
        ratios: list[float] = []
        trainings: tuple[list[float], list[float]] = ([], [])
        for _ in range(TURNS):
            memory, durable = (
                saturated(url, Request(f"/models/{model}/forward", body), 2)
                for url, model in zip(urls, models, strict=True)
            )
            ratios.append(durable / memory)
            for http, model, times in zip(clients, models, trainings, strict=True):
                for _ in range(TRAININGS // TURNS):
                    began = time.perf_counter()
                    assert http.post(f"/models/{model}/train", headers={"Prefer": "wait=60"}).status_code == 200
                    times.append(1_000 * (time.perf_counter() - began))
        yield "a default forward with a database ÷ without", f"{statistics.median(ratios):.2f}"
        memory, durable = map(statistics.median, trainings)
        yield "a default training with a database, HTTP included", f"{durable:.1f} ms, without {memory:.1f} ms"


def main() -> None:
    pin(first=False)
    print("| a database of SQLite | |\n|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        many = (with_many_models(folder, count) for count in (1_000, 10_000))
        for row in chain(alone(), *many, beside_memory(folder)):
            print(f"| {row[0]} | {row[1]} |", flush=True)


if __name__ == "__main__":
    main()
