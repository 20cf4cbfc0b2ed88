"""A run takes the memory that its plan says, and no more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.lora.spec import ChainSpec, Spec
from service.training.plan import EarlyStopping, Plan
from service.training.sources import Random, Teacher

SMALL = Spec(in_features=2, out_features=2, rank=1)
WIDE = Spec(in_features=96, out_features=96)
FULL = Spec(in_features=128, out_features=128, use_dora=True, dropout=0.2, init="olora", train_bias=True)
MEASURE = """
import os, sys, torch
from itertools import islice
from service.lora.chain import LoRAChain
from service.lora.init import begun, frozen
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.training import datasets
from service.training.fit import fit
from service.training.lesson import Lesson
from service.training.rows import Rows
from service.training.cost import bytes_needed
from service.training.fitted import fitted
from service.training.plan import Plan
from service.training.sources import Random
from tests.memory import peak_growth
from tests.training.test_memory import GREEDY, SMALL

torch.set_num_threads(1)

def measure(name, steps):
    spec, plan = GREEDY[name]
    plan = fitted(plan, spec, 0, 2**40)
    layers = [begun(each, 0, *frozen(each, 0)) for each in spec.layers]
    layer = layers[0] if len(layers) == 1 else LoRAChain(tuple(layers), spec.activations)
    small = LoRALinear(torch.zeros(2, 2), None, torch.zeros(1, 2), torch.zeros(2, 1), 1.0)
    x = torch.zeros(2, 2)
    warm = fitted(Plan(epochs=1, data=Random(n_samples=2)), SMALL, 0, 2**40)
    for _ in fit([Lesson(small, warm, Rows(x, x))]):  # what torch sets up on first use is no part of a job
        pass
    grown = peak_growth()
    rows = datasets.load(plan.data, layer, {})
    for told in islice(fit([Lesson(layer, plan, rows, dropout=spec.dropout)]), steps):
        pass
    print(grown(), bytes_needed(plan, spec), flush=True)

for line in sys.stdin:
    name, steps = line.rstrip().split(":")
    child = os.fork()
    if not child:
        measure(name, int(steps))
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(flush=True)
"""
GREEDY = {
    "a teacher of many rows": (Spec(in_features=1, out_features=64, rank=1), Plan(data=Teacher(n_samples=500_000))),
    "a teacher of a large layer": (Spec(in_features=3_000, out_features=3_000), Plan(data=Teacher(n_samples=8))),
    "a high rank": (Spec(in_features=4_000, out_features=4_000, rank=1_000), Plan(data=Random(n_samples=8), epochs=2)),
    "many small batches": (
        Spec(in_features=1, out_features=1, rank=1),
        Plan(data=Random(n_samples=2**21), batch_size=1),
    ),
    "one full batch": (
        Spec(in_features=64, out_features=64),
        Plan(data=Random(n_samples=100_000), loss="cosine", epochs=2),
    ),
    "moments of many rows": (Spec(in_features=32, out_features=8), Plan(data=Random(n_samples=150_000))),
    "moments of a wide layer": (
        Spec(in_features=1_000, out_features=200),
        Plan(data=Random(n_samples=5_000), epochs=100, early_stopping=EarlyStopping(patience=3)),
    ),
    "a closed form": (
        Spec(in_features=1_000, out_features=10),
        Plan(data=Random(n_samples=500), optimizer="closed_form"),
    ),
    "the optimum of a run by rows": (
        Spec(in_features=1_000, out_features=500),
        Plan(data=Random(n_samples=100), epochs=3),
    ),
    "magnitudes of a large layer": (
        Spec(in_features=2_000, out_features=2_000, use_dora=True),
        Plan(data=Random(n_samples=200), epochs=3),
    ),
    "magnitudes of many rows": (
        Spec(in_features=64, out_features=64, use_dora=True, dropout=0.1),
        Plan(data=Random(n_samples=50_000), loss="cosine", epochs=2),
    ),
    "a start on a large base": (
        Spec(in_features=2_000, out_features=1_500, init="pissa"),
        Plan(data=Random(n_samples=200), loss="mae", epochs=3),
    ),
    "many rows through a chain": (
        ChainSpec(layers=(WIDE, WIDE, WIDE), activations=("gelu", "silu")),
        Plan(data=Random(n_samples=30_000), epochs=2),
    ),
    "a chain with all there is": (
        ChainSpec(layers=(FULL, FULL), activations=("tanh",)),
        Plan(data=Random(n_samples=20_000), batch_size=10_000, epochs=2),
    ),
    "dropout": (Spec(in_features=256, out_features=8, dropout=0.5), Plan(data=Random(n_samples=50_000), epochs=2)),
}


@pytest.fixture(scope="module")
def measuring() -> Iterator["subprocess.Popen[str]"]:
    """A process that has imported all there is to import, and forks for each measurement."""
    # What is freed goes back at once: the holes that the allocator otherwise keeps differ from one run to the next.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}
    command, root = [sys.executable, "-c", MEASURE], Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=env
    ) as process:
        yield process


@pytest.mark.parametrize("name", GREEDY)
def test_a_run_takes_no_more_memory_than_its_plan_says(measuring, name):
    steps = 12 if "batches" in name else 10_000
    print(name, steps, sep=":", file=measuring.stdin, flush=True)
    taken, needed = map(int, measuring.stdout.readline().split())
    assert taken <= needed + 2**23  # what the allocator keeps
