"""Engines with real workers, jobs that take as long as a test needs, and waiting for how they end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from service.engine import Capacity, Engine
from service.jobs.job import Job
from service.models.model import LoadedModel as Model
from service.models.shared import SharedStore
from service.training.fit import Ended, Epochs, fit
from service.training.lesson import Fitted, Lesson
from service.training.plan import Plan
from service.training.sources import Inline, Random
from tests.running import nursery, until

SHORT = Plan(epochs=3, data=Random(n_samples=20))
ENDLESS = Plan(epochs=10_000, batch_size=20, data=Random(n_samples=5_000))  # minutes, on a model as `small` makes it


@contextmanager
def running(**capacity: Any) -> Iterator[Engine]:
    """An engine whose workers are up."""
    with Engine(Capacity(**capacity), nursery=nursery()) as engine:
        until_ready(engine)
        yield engine


@contextmanager
def replica(url: str, workers: int = 1, lease_seconds: float = 2.0, **capacity: Any) -> Iterator[Engine]:
    """An engine on a database that others may use too."""
    store = SharedStore(url, lease_seconds)
    chosen = Capacity(**{"workers": workers, "checkpoint_seconds": 0.2, **capacity})
    with Engine(chosen, store=store, nursery=nursery()) as engine:
        yield engine


def until_ready(engine: Engine) -> None:
    """Wait until every worker is up."""
    until(lambda: engine.workers.ready == len(engine.workers))


def small(engine: Engine, **settings: Any) -> Model:
    """A model of 64 to 64 features."""
    return engine.create(**{"in_features": 64, "out_features": 64, "rank": 4, "seed": 7, **settings})


def inline(n: int = 50, epochs: int = 3, batch_size: int | None = None) -> tuple[Plan, dict[str, np.ndarray]]:
    """A plan on rows that travel with it, for a model as `small` makes it."""
    draw = np.random.default_rng(0)
    rows = {f"data.{name}": draw.standard_normal((n, 64)).astype(np.float32) for name in "xy"}
    return Plan(epochs=epochs, batch_size=batch_size, data=Inline(n_samples=n, targets="numbers")), rows


def endless() -> tuple[Plan, dict[str, np.ndarray]]:
    """A plan that takes as long as `ENDLESS`, on rows that travel with it."""
    return inline(5_000, ENDLESS.epochs, ENDLESS.batch_size)


def until_ended(engine: Engine, job: Job) -> Job:
    """The job, once it has ended."""
    until(lambda: engine.ledger.get(job.id).state.terminal)
    return engine.ledger.get(job.id)


def until_training(engine: Engine, job: Job) -> Job:
    """The job, once it has finished an epoch."""
    until(lambda: engine.ledger.get(job.id).epoch)
    return engine.ledger.get(job.id)


def driven(lesson: Lesson) -> tuple[list[float], Fitted]:
    """The losses of a run in this process, and what it leaves."""
    losses: list[float] = []
    for told in fit([lesson]):
        if isinstance(told, Epochs):
            losses += told.curves["losses"][:, 0].tolist()
        elif isinstance(told, Ended):
            assert isinstance(told.outcome, Fitted)
            return losses, told.outcome
    raise AssertionError("the run has no end")
