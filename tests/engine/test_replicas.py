"""Several engines on one PostgreSQL: what one of them did, the others know; what one had begun, another ends."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from service.engine import Engine
from service.engine.sweeps import Trial
from service.errors import BaseNotFound, ModelNotFound
from service.jobs import events
from service.jobs.state import State
from service.training.plan import Plan
from service.training.sources import Random
from tests.engine.engines import inline, replica, small, until_ended
from tests.running import nursery, until

SLOW = Plan(epochs=500, seed=3, batch_size=4, data=Random(n_samples=80, seed=5))


@pytest.fixture
def two(database: str) -> Iterator[tuple[Engine, Engine]]:
    with ExitStack() as stack:
        yield stack.enter_context(replica(database, 1)), stack.enter_context(replica(database, 0))


def knows(engine: Engine, model_id: str) -> bool:
    return model_id in engine.registry


def test_what_is_made_renamed_and_deleted_on_one_is_so_on_the_other(two):
    one, other = two
    model = small(one)
    until(lambda: knows(other, model.id))
    x = np.ones((2, 64), np.float32)
    assert np.array_equal(one.forward(model.id, x).outputs, other.forward(model.id, x).outputs)
    other.update(model.id, name="named elsewhere")
    until(lambda: one.registry.get(model.id).name == "named elsewhere")
    assert one.registry.at_hand(model.id) is not None  # its weights stay in memory
    other.delete(model.id)
    until(lambda: not knows(one, model.id))
    with pytest.raises(ModelNotFound):
        one.forward(model.id, x)
    with pytest.raises(BaseNotFound):
        one.registry.base(model.base.id)


def test_a_version_that_one_publishes_answers_on_the_other(two):
    one, other = two
    model = small(one)
    until(lambda: knows(other, model.id))
    x = np.ones((2, 64), np.float32)
    assert other.forward(model.id, x).model_version == 0
    job = other.train(model.id, Plan(epochs=3, seed=1, data=Random(n_samples=20, seed=1)))
    until(lambda: other.ledger.get(job.id).state is State.SUCCEEDED)  # on the one that has a worker
    assert one.ledger.get(job.id).state is State.SUCCEEDED
    assert list(one.ledger.get(job.id).losses) == list(other.ledger.get(job.id).losses)
    assert other.forward(model.id, x).model_version == 1
    assert np.allclose(one.forward(model.id, x).outputs, other.forward(model.id, x).outputs, atol=1e-5)


def test_a_job_is_followed_and_cancelled_from_elsewhere(two):
    one, other = two
    plan, rows = inline(epochs=10_000, batch_size=2)
    job = other.train(small(other).id, plan, rows)
    until(lambda: other.ledger.get(job.id).epoch > 10)
    assert other.ledger.get(job.id).state is State.RUNNING
    seen = events.since(other.ledger.get(job.id))
    assert [event.number for event in seen] == list(range(1, len(seen) + 1))
    other.cancel(job.id)
    until(lambda: one.ledger.get(job.id).state is State.CANCELLED)
    until(lambda: not list(one.store.rows("leases", "job_id", job_id=job.id)))
    assert [*one.store.rows("given", "id"), *one.store.rows("epochs", "job_id")] == []


def test_a_sweep_is_cancelled_from_elsewhere(two):
    one, other = two
    plan = replace(SLOW, epochs=10_000, validation=0.2)
    trials = [Trial({"rank": rank}, {"rank": rank}, plan) for rank in (1, 2, 3)]
    sweep = other.sweeps.start({"in_features": 64, "out_features": 10}, trials)
    ids = [member.job_id for member in sweep.members]
    until(lambda: any(other.ledger.get(job_id).epoch > 10 for job_id in ids))
    other.sweeps.cancel(sweep.id)
    until(lambda: {one.ledger.get(job_id).state for job_id in ids} == {State.CANCELLED})
    until(lambda: not list(one.store.rows("leases", "job_id", job_id=ids)))
    assert all(member.model_id in one.registry for member in sweep.members)


def test_a_job_whose_server_leaves_is_ended_by_another_with_the_same_numbers(database):
    with Engine(nursery=nursery()) as engine:
        through = until_ended(engine, engine.train(small(engine).id, SLOW))
    with replica(database, 0) as other:
        with replica(database, 1) as one:
            job = one.train(small(one).id, SLOW)
            until(lambda: one.ledger.get(job.id).epoch > 20)
        left = one.ledger.get(job.id)
        assert left.state is State.RUNNING
        with replica(database, 1):
            until(lambda: other.ledger.get(job.id).state.terminal)
        ended = other.ledger.get(job.id)
        assert (ended.state, list(ended.losses)) == (State.SUCCEEDED, list(through.losses))


def test_a_job_that_loses_its_worker_may_go_on_under_that_of_another_server(database):
    with Engine(nursery=nursery()) as engine:
        through = until_ended(engine, engine.train(small(engine).id, SLOW))
    with replica(database, 1, retries=3) as one, replica(database, 1, retries=3) as other:
        job = one.train(small(one).id, SLOW)
        until(lambda: one.ledger.get(job.id).epoch > 20 and other.ledger.get(job.id).epoch > 20)
        for engine in (one, other):
            for pid in engine.workers.pids:
                os.kill(pid, signal.SIGKILL)
        until(lambda: all(engine.ledger.get(job.id).state.terminal for engine in (one, other)))
        for engine in (one, other):
            ended = engine.ledger.get(job.id)
            assert (ended.state, list(ended.losses)) == (State.SUCCEEDED, list(through.losses))
        assert not list(one.store.rows("leases", "job_id", job_id=job.id))
