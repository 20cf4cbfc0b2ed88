"""What a Ray cluster trains is what this machine would have, and no job is lost with a node."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.engine import Capacity, Engine
from service.jobs import events
from service.jobs.nursery import of_relays
from service.jobs.state import State
from service.models.sql import SqlStore
from service.models.store import MemoryOnly
from service.training.plan import Plan
from service.training.sources import Teacher
from tests.engine.engines import ENDLESS, SHORT, running, small, until_ended, until_ready, until_training
from tests.running import free_port, until

SWEEP = {"in_features": 64, "out_features": 64, "rank": 4, "seed": 7}
PLAN = Plan(epochs=30, seed=1, batch_size=20, data=Teacher(n_samples=200, seed=2))


@contextmanager
def on_ray(address: str, path: Path | None = None, **capacity: int) -> Iterator[Engine]:
    """An engine that has two workers on a cluster, and perhaps a database."""
    store = MemoryOnly() if path is None else SqlStore(f"sqlite:///{path}")
    chosen = Capacity(**{"workers": 2, "retries": 3, "checkpoint_seconds": 0.5, **capacity})
    with of_relays(address, 0) as nursery, Engine(chosen, store=store, nursery=nursery) as engine:
        until_ready(engine)
        yield engine


def swept(engine: Engine, members: int, plan: Plan = PLAN) -> list[str]:
    """The jobs of a sweep over learning rates and seeds."""
    settings = [({}, replace(plan, lr=0.001 * (1 + n % 8), seed=n)) for n in range(members)]
    return [job.id for job in engine.train_new(SWEEP, settings, group="sweep")]


def test_a_sweep_on_two_nodes_is_what_it_is_here(cluster):
    with on_ray(cluster.address) as there, running(workers=2) as here:
        jobs = [swept(engine, 64) for engine in (there, here)]
        for engine, ids in zip((there, here), jobs, strict=True):
            until(lambda engine=engine, ids=ids: all(engine.ledger.get(id).state.terminal for id in ids), 120)
        for remote, local in zip(*jobs, strict=True):
            one, other = there.ledger.get(remote), here.ledger.get(local)
            assert (one.state, other.state) == (State.SUCCEEDED, State.SUCCEEDED)
            assert np.allclose(one.losses, other.losses, rtol=1e-6, atol=0)
            x = np.ones((2, 64), np.float32)
            assert np.allclose(
                there.forward(one.model_id, x).outputs, here.forward(other.model_id, x).outputs, rtol=1e-6, atol=1e-6
            )


@pytest.mark.parametrize("side", ["address", "outside"])
def test_a_job_is_cancelled_for_real_and_its_worker_takes_the_next(cluster, side):
    with on_ray(getattr(cluster, side), workers=1) as engine:
        model = small(engine)
        endless = engine.train(model.id, ENDLESS)
        until_training(engine, endless)
        engine.cancel(endless.id)
        job = until_ended(engine, engine.train(model.id, SHORT))
        assert (job.state, len(job.losses)) == (State.SUCCEEDED, 3)
        assert engine.workers.restarts == 0


@pytest.mark.parametrize("durable", [True, False])
def test_a_node_that_is_lost_in_mid_sweep_loses_no_member_and_no_epoch_comes_twice(durable, cluster, tmp_path):
    slow = replace(PLAN, epochs=200)
    with on_ray(cluster.address, tmp_path / "lora.db" if durable else None) as engine:
        ids = swept(engine, 64, slow)
        until(lambda: sum(engine.ledger.get(id).epoch > 20 for id in ids) > 32)
        heard = {id: events.since(engine.ledger.get(id)) for id in ids}
        cluster.lose()
        until(lambda: engine.workers.restarts)
        assert any(not engine.ledger.get(id).state.terminal for id in ids)
        until(lambda: all(engine.ledger.get(id).state.terminal for id in ids), 120)
        ended = [engine.ledger.get(id) for id in ids]
        assert {job.state for job in ended} == {State.SUCCEEDED}
        with running(workers=2) as here:
            alone = swept(here, 64, slow)
            until(lambda: all(here.ledger.get(id).state.terminal for id in alone), 120)
            for job, id in zip(ended, alone, strict=True):
                assert np.allclose(job.losses, here.ledger.get(id).losses, rtol=1e-6, atol=0)
        for job in ended:  # whoever followed goes on behind what was heard
            before = heard[job.id]
            numbers = [event.number for event in [*before, *events.since(job, before[-1].number)]]
            assert numbers == list(range(1, events.count(job) + 1))
    cluster.add()


def test_a_job_that_loses_every_worker_fails_and_says_so(cluster):
    with on_ray(cluster.address, workers=1, retries=0) as engine:
        model = small(engine)
        job = engine.train(model.id, ENDLESS)
        until_training(engine, job)
        (relay,) = engine.workers.pids
        os.kill(relay, signal.SIGKILL)
        job = until_ended(engine, job)
        assert (job.state, job.reason) == (State.FAILED, "worker-died")


def test_a_cluster_that_does_not_answer_is_told_of_and_harms_nothing(capfd):
    with of_relays(f"127.0.0.1:{free_port()}", 0) as nursery, Engine(Capacity(), nursery=nursery) as engine:
        model = small(engine)
        until(lambda: engine.workers.failing)
        assert not engine.workers.started
        engine.forward(model.id, np.ones((2, 64), np.float32))
    assert "no Ray cluster answers at 127.0.0.1:" in capfd.readouterr().err
