"""Many adapters on one base, in process and beside PEFT: a mixed forward, a creation, and what each takes."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from service.engine import Capacity, Engine

SIZE, RANK, ROWS = 1_024, 8, 64
TURNS = 7
MANY = 10_000


def fastest(work: Callable[[], Any], times: int = 20) -> float:
    """Seconds of one call, the best of some turns."""

    def turn() -> float:
        at = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - at) / times

    return min(turn() for _ in range(TURNS))


class Linear(nn.Module):
    """A model of one layer, as PEFT wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIZE, SIZE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def peft_model(adapters: int) -> Any:
    """A layer with so many adapters whose B is not zero."""
    config = LoraConfig(r=RANK, target_modules=["layer"], init_lora_weights=False)
    model = get_peft_model(Linear(), config, adapter_name="a0")
    for number in range(1, adapters):
        model.add_adapter(f"a{number}", config)
    return model.eval()


def mixed(adapters: int) -> tuple[float, float, float]:
    """Seconds of ROWS rows shared out among adapters: ours, PEFT's, and of the frozen layer alone."""
    with Engine() as engine:
        first = engine.create(in_features=SIZE, out_features=SIZE, rank=RANK, init="normal")
        models = [first] + [
            engine.create(base_id=first.base.id, rank=RANK, init="normal", seed=number) for number in range(1, adapters)
        ]
        x = np.random.default_rng(0).standard_normal((ROWS, SIZE), np.float32)
        items = list(zip(models, np.split(x, adapters), strict=True))
        peft, rows = peft_model(adapters), torch.from_numpy(x)
        names = [f"a{number}" for number in range(adapters) for _ in range(ROWS // adapters)]
        with torch.inference_mode():
            ours = fastest(lambda: engine.forwards.run_all(items))
            theirs = fastest(lambda: peft(rows, adapter_names=names), times=3)
            frozen = fastest(lambda: nn.functional.linear(rows, first.base.weight, first.base.bias))
        return ours, theirs, frozen


def creation() -> tuple[float, float]:
    """How many times as long the 1,000th adapter takes to create as the 10th; ours in the median, PEFT's at 200."""

    def ours_once() -> float:
        engine = Engine()
        base = engine.create(in_features=SIZE, out_features=SIZE, rank=4).base_id
        return _late_over_early(lambda number: engine.create(base_id=base, rank=4), 1_000)

    ours = statistics.median(ours_once() for _ in range(TURNS))
    config = LoraConfig(r=4, target_modules=["layer"])
    model = get_peft_model(Linear(), config, adapter_name="first")
    theirs = _late_over_early(lambda number: model.add_adapter(f"a{number}", config), 200)
    return ours, theirs


def _late_over_early(create: Callable[[int], Any], last: int) -> float:
    times = []
    for number in range(last):
        at = time.perf_counter()
        create(number)
        times.append(time.perf_counter() - at)
    return min(times[-10:]) / min(times[5:15])


def bytes_beyond_their_own() -> float:
    """What each of many adapters takes in memory beside its own numbers."""
    engine = Engine(Capacity(max_models=MANY + 1))
    base = engine.create(in_features=SIZE, out_features=SIZE, rank=4).base.id
    before = resident()
    own = sum(engine.create(base_id=base, rank=4).nbytes for _ in range(MANY))
    return (resident() - before - own) / MANY


def resident(pid: int | None = None) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def rows() -> Iterator[tuple[str, str]]:
    """What was measured, in words and figures."""
    torch.set_num_threads(1)
    yield (
        f"memory of an adapter beside its own numbers, {MANY:,} of rank 4 on one {SIZE} → {SIZE} base",
        f"{bytes_beyond_their_own() / 1_024:.1f} KiB",
    )
    for adapters in (1, 4, 16, 64):
        ours, theirs, frozen = mixed(adapters)
        yield (
            f"mixed forward in process, {ROWS} rows over {adapters} adapters of rank {RANK}, {SIZE} → {SIZE}",
            f"{theirs / ours:.1f} × PEFT's `adapter_names`, {ours / frozen:.2f} × the frozen layer alone",
        )
    ours, theirs = creation()
    yield (
        "creating the 1,000th adapter ÷ the 10th",
        f"{ours:.2f} (PEFT: {theirs:.0f} for the 200th)",
    )
