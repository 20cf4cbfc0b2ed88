"""An engine with a store: a restart finds everything, and jobs go on as if nothing had been."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from service.codecs.message import unpack
from service.engine import Capacity, Engine
from service.engine.stack import Stack
from service.jobs import events
from service.jobs.job import Job
from service.jobs.state import State
from service.models.sql import SqlStore
from service.training.plan import EarlyStopping, Plan
from service.training.sources import Digits, Random
from tests.engine.engines import inline, small, until_ended, until_ready
from tests.postgres import postgres
from tests.running import nursery, until


@contextmanager
def durable(path: Path, **capacity: object) -> Iterator[Engine]:
    """An engine on a file of SQLite whose jobs are stored after every epoch."""
    chosen, store = Capacity(**{"checkpoint_seconds": 0.0, **capacity}), SqlStore(f"sqlite:///{path}")
    with Engine(chosen, store=store, nursery=nursery()) as engine:
        yield engine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.db"


def told(job: Job) -> list[tuple]:
    return [(event.number, event.kind, event.data) for event in events.since(job)]


def same(one: Job, other: Job) -> bool:
    """Whether two jobs went the same way, to the last bit."""
    return all(
        getattr(one, name) == getattr(other, name) for name in ("state", "epoch", "metrics", "model_version", "curves")
    ) and all(list(one.curve(name)) == list(other.curve(name)) for name in one.curves)


LONG = Plan(epochs=60, seed=3, batch_size=4, data=Random(n_samples=400, seed=5))
PLANS = {
    "batches": LONG,
    "a schedule, a clip and a held-out part": replace(
        LONG,
        validation=0.25,
        schedule="cosine",
        warmup_epochs=2,
        max_grad_norm=0.5,
        early_stopping=EarlyStopping(patience=50),
    ),
    "classes": Plan(epochs=40, seed=1, batch_size=16, loss="cross_entropy", data=Digits(), optimizer="adamw"),
}


def trained(engine: Engine, plan: Plan) -> tuple[Job, dict[str, list]]:
    out_features = 10 if isinstance(plan.data, Digits) else 64
    model = small(engine, out_features=out_features, dropout=0.1)
    job = until_ended(engine, engine.train(model.id, plan))
    return job, {name: tensor.tolist() for name, tensor in engine.registry.loaded(model.id).adapter.items()}


@pytest.mark.parametrize("name", PLANS)
def test_a_job_that_a_restart_interrupts_ends_as_one_that_ran_through(path, name):
    plan = PLANS[name]
    with Engine(nursery=nursery()) as engine:
        through, weights = trained(engine, plan)
    with durable(path) as engine:
        out_features = 10 if isinstance(plan.data, Digits) else 64
        model = small(engine, out_features=out_features, dropout=0.1)
        job = engine.train(model.id, plan)
        until(lambda: engine.ledger.get(job.id).epoch >= 5)
    seen = told(engine.ledger.get(job.id))
    assert not engine.ledger.get(job.id).state.terminal
    with durable(path) as engine:
        at_start = engine.ledger.get(job.id)
        assert (at_start.state, at_start.epoch >= 4) == (State.RUNNING, True)
        ended = until_ended(engine, job)
        assert same(ended, through)
        assert told(ended)[: len(seen)] == seen
        adapter = engine.registry.loaded(model.id).adapter
        assert {name: tensor.tolist() for name, tensor in adapter.items()} == weights
    with durable(path) as engine:
        assert told(engine.ledger.get(job.id)) == told(ended)
        assert engine.ledger.get(job.id).finished_at == ended.finished_at


def test_a_job_that_had_not_begun_begins_after_the_restart_with_the_rows_that_came_with_it(path):
    plan, rows = inline(epochs=3)
    store = SqlStore(f"sqlite:///{path}")
    engine = Engine(store=store)  # without workers
    model = small(engine)
    jobs = [engine.train(model.id, replace(plan, seed=2), rows) for _ in range(2)]
    engine.close()
    with durable(path) as engine:
        assert [engine.ledger.get(job.id).state for job in jobs] == [State.QUEUED] * 2
        ended = [until_ended(engine, job) for job in jobs]
        assert [job.model_version for job in ended] == [1, 2]
        until(lambda: not list(engine.store.rows("given", "id")))
        versions = engine.registry.get(model.id).version
    with Engine(nursery=nursery()) as engine:
        model = small(engine)
        again = [until_ended(engine, engine.train(model.id, replace(plan, seed=2), rows)) for _ in range(2)]
    assert versions == 2
    assert all(same(one, other) for one, other in zip(ended, again, strict=True))


def test_a_data_set_is_there_again_and_a_job_learns_from_what_it_was(path):
    draw = np.random.default_rng(1)
    parts = [{name: draw.standard_normal((20, 64)).astype(np.float32) for name in "xy"} for _ in range(3)]
    plan = Plan(epochs=4, seed=2, data=Random())

    def uploaded(engine: Engine) -> str:
        dataset_id = engine.datasets.upload(parts[0]).id
        engine.datasets.append(dataset_id, parts[1])
        return dataset_id

    engine = Engine(store=SqlStore(f"sqlite:///{path}"))
    dataset_id, model = uploaded(engine), small(engine)
    job = engine.train(model.id, replace(plan, data=engine.datasets.source(dataset_id)))
    grown = engine.datasets.append(dataset_id, parts[2])
    engine.close()
    with durable(path) as engine:
        there = engine.datasets.get(dataset_id)
        assert (there.source, there.created_at, there.updated_at) == (grown.source, grown.created_at, grown.updated_at)
        arrays = grown.arrays()
        assert all(np.array_equal(array, arrays[name]) for name, array in there.arrays().items())
        ended = until_ended(engine, job)
        engine.datasets.append(dataset_id, parts[0])
        assert engine.datasets.get(dataset_id).source.n_samples == 80
        engine.delete_dataset(dataset_id)
    with Engine(nursery=nursery()) as engine:
        model, dataset_id = small(engine), uploaded(engine)
        plan = replace(plan, data=engine.datasets.source(dataset_id))
        assert same(until_ended(engine, engine.train(model.id, plan)), ended)
    with durable(path) as engine:
        assert engine.datasets.all() == []


def test_a_job_can_be_continued_after_a_restart(path):
    plan = Plan(epochs=4, seed=2, batch_size=10, data=Random(n_samples=50, seed=1))
    with Engine(nursery=nursery()) as engine:
        model = small(engine)
        whole = until_ended(engine, engine.train(model.id, replace(plan, epochs=8)))
    with durable(path) as engine:
        model = small(engine)
        first = until_ended(engine, engine.train(model.id, plan))
    with durable(path) as engine:
        second = until_ended(engine, engine.train(model.id, replace(plan, continue_from=first.id)))
    assert [*first.losses, *second.losses] == list(whole.losses)


def test_what_ended_stays_as_it_ended_and_what_was_deleted_stays_away(path):
    with durable(path) as engine:
        until_ready(engine)
        model = small(engine, name="ñ", metadata={"a": "b"})
        gone = small(engine)
        diverged = engine.train(model.id, Plan(epochs=50, lr=1e6, optimizer="sgd", seed=1))
        cancelled = engine.train(gone.id, replace(LONG, epochs=10_000))
        until(lambda: engine.ledger.get(cancelled.id).epoch)
        engine.cancel(cancelled.id)
        done = until_ended(engine, diverged)
        removed = until_ended(engine, engine.train(model.id, Plan(epochs=1)))
        engine.ledger.remove(removed.id)
        engine.delete(gone.id)
        before = [told(job) for job in engine.ledger.all()]
        cancelled = engine.ledger.get(cancelled.id)
    with durable(path) as engine:
        assert [told(job) for job in engine.ledger.all()] == before
        assert (engine.ledger.get(done.id).reason, done.reason) == ("diverged", "diverged")
        assert engine.ledger.get(cancelled.id).duration_seconds == cancelled.duration_seconds
        (there,) = engine.registry.all()
        assert (there.id, there.name, there.metadata, there.version) == (model.id, "ñ", {"a": "b"}, 1)
        newest = small(engine)
        assert newest.id > model.id


def test_a_checkpoint_that_comes_late_does_not_bring_an_ended_job_back(path):
    engine = Engine(store=SqlStore(f"sqlite:///{path}"))  # without workers
    job = engine.train(small(engine).id, LONG)
    (run,) = engine.queue.take(0)
    run.begin(1)
    engine.cancel(job.id)
    facts = {"path": "batch", "epoch": 1, "steps": 1, "over": False, "watched": {}}
    run.checkpoint(facts, {"state.curves.losses": np.ones(1)})
    engine.queue.done([run])
    engine.close()
    with durable(path) as engine:
        assert engine.ledger.get(job.id).state is State.CANCELLED
        assert list(engine.store.rows("states", "job_id")) == []


def test_only_so_many_ended_jobs_are_kept_in_the_store_too(path):
    with durable(path, keep_jobs=2) as engine:
        model = small(engine)
        jobs = [until_ended(engine, engine.train(model.id, Plan(epochs=1, data=Random(n_samples=5)))) for _ in range(4)]
        kept = [job.id for job in jobs[2:]]
        until(lambda: [row["id"] for row in engine.store.rows("jobs", "id")] == kept)
    with durable(path, keep_jobs=1) as engine:
        assert [job.id for job in engine.ledger.all()] == [jobs[3].id]
        assert len(list(engine.store.rows("jobs", "id"))) == 1


def test_a_restart_on_postgresql_goes_on_as_one_on_sqlite(tmp_path):
    with postgres(tmp_path) as url:
        with Engine(Capacity(checkpoint_seconds=0.0), store=SqlStore(url), nursery=nursery()) as engine:
            model = small(engine, dropout=0.1)
            job = engine.train(model.id, LONG)
            until(lambda: engine.ledger.get(job.id).epoch >= 5)
        with Engine(store=SqlStore(url), nursery=nursery()) as engine:
            ended = until_ended(engine, job)
            assert engine.registry.get(model.id).version == 1
    with Engine(nursery=nursery()) as engine:
        through, _ = trained(engine, LONG)
    assert same(ended, through)


@pytest.mark.parametrize("batch_size", [4, None])
def test_a_job_stops_at_the_next_epoch_when_the_service_leaves_and_goes_on_from_there(path, batch_size):
    plan, rows = inline(n=400, epochs=3_000, batch_size=batch_size)
    plan = replace(plan, seed=2)
    with durable(path, checkpoint_seconds=3_600.0) as engine:
        job = engine.train(small(engine).id, plan, rows)
        until(lambda: engine.ledger.get(job.id).epoch >= 5)
    left = engine.ledger.get(job.id)
    assert (left.state, left.epoch < plan.epochs) == (State.RUNNING, True)
    with durable(path, workers=0) as engine:
        there = engine.ledger.get(job.id)
        assert (there.epoch, list(there.losses)) == (left.epoch, list(left.losses))
        assert engine.budget.used == 0  # its rows are read when its turn comes


def test_rows_that_jobs_share_are_read_once_after_a_restart_and_travel_once(path):
    plan, rows = inline(epochs=3)
    engine = Engine(store=SqlStore(f"sqlite:///{path}"))  # without workers
    engine.train_new({"in_features": 64, "out_features": 64, "seed": 1}, [({}, plan)] * 3, rows, group="swp_1")
    engine.close()
    engine = Engine(store=SqlStore(f"sqlite:///{path}"))
    runs = engine.queue.take(0, lambda taken, entry: True)
    header, _ = unpack(Stack(runs, engine.trainings.let_go).begin())
    assert len({told["tensors"]["data.x"] for told in header["jobs"]}) == 1 < len(runs) == 3
    assert engine.budget.used == sum(array.nbytes for array in rows.values())
    engine.trainings.let_go(runs)
    assert engine.budget.used == 0
    engine.close()


def test_a_job_that_is_about_to_begin_waits_when_the_service_leaves(path):
    engine = Engine(store=SqlStore(f"sqlite:///{path}"))  # without workers
    job = engine.train(small(engine).id, LONG)
    (run,) = engine.queue.take(0)
    engine.drain()
    assert run.begin(1) is None
    engine.trainings.let_go([run])
    assert engine.queue.take(0) == []
    engine.close()
    with durable(path) as engine:
        assert until_ended(engine, job).state is State.SUCCEEDED


@pytest.mark.parametrize("stored", [True, False])
def test_a_job_that_loses_its_worker_goes_on_under_another_from_where_it_was_stored(path, stored):
    with Engine(nursery=nursery()) as engine:
        through, weights = trained(engine, LONG)
    store = SqlStore(f"sqlite:///{path}") if stored else None
    with Engine(Capacity(retries=1, checkpoint_seconds=0.0), store=store, nursery=nursery()) as engine:
        model = small(engine, out_features=64, dropout=0.1)
        job = engine.train(model.id, LONG)
        seen: list[int] = []
        engine.ledger.watch(lambda: seen.append(engine.ledger.get(job.id).epoch), job.id)
        until(lambda: engine.ledger.get(job.id).epoch >= 10)
        os.kill(engine.workers.pids[0], signal.SIGKILL)
        ended = until_ended(engine, job)
        assert same(ended, through)
        assert {name: tensor.tolist() for name, tensor in engine.registry.loaded(model.id).adapter.items()} == weights
        back = next(now for before, now in pairwise(seen) if now < before or now == before >= 10)
        assert back >= 9 if stored else back == 0  # the last epochs that were told may not be stored yet
        assert (engine.workers.restarts, len(engine.queue)) == (1, 0)


def test_a_job_that_loses_its_worker_too_often_fails(path):
    with durable(path, retries=1) as engine:
        model = small(engine)
        held = engine.budget.used
        plan, rows = inline(epochs=10_000, batch_size=2)
        job = engine.train(model.id, plan, rows)
        for kills in (1, 2):
            until(lambda kills=kills: engine.workers.restarts == kills - 1 and engine.workers.ready)
            seen = engine.ledger.get(job.id).epoch
            until(lambda seen=seen: engine.ledger.get(job.id).epoch > seen)
            os.kill(engine.workers.pids[0], signal.SIGKILL)
        job = until_ended(engine, job)
        assert (job.state, job.reason) == (State.FAILED, "worker-died")
        until(lambda: engine.budget.used == held)


def test_moments_without_their_rows_outlive_a_restart(path):
    def sent(rows: int) -> dict[str, np.ndarray]:
        counts = np.array([rows, rows, 3.0])
        return {"counts": counts, "x_mean": np.ones(2), "y_mean": np.ones(1), "xx": np.eye(2), "xy": np.ones((2, 1))}

    with durable(path) as engine:
        dataset = engine.datasets.upload(sent(10**10))
        dataset = engine.datasets.append(dataset.id, sent(5))
    with durable(path) as engine:
        found = engine.datasets.get(dataset.id)
        assert found.source == dataset.source
        assert found.source.n_samples == 10**10 + 5
        assert all(np.array_equal(array, dataset.arrays()[name]) for name, array in found.arrays().items())
