"""Jobs that are alike are trained together: the numbers are those of jobs alone, and each has an end of its own."""

import os
import signal

import numpy as np
import pytest

from service.codecs.message import unpack
from service.engine import Engine
from service.engine.stack import Stacks
from service.jobs import events
from service.jobs.job import Job
from service.jobs.state import State
from service.training.plan import EarlyStopping, Plan
from service.training.sources import Inline, Random
from tests.engine.engines import ENDLESS, running, small, until_ended, until_ready, until_training
from tests.running import until

ROWS = Plan(epochs=12, batch_size=16, data=Random(n_samples=50))
MOMENTS = Plan(epochs=40, data=Random(n_samples=500))


def busy(engine: Engine) -> Job:
    """A job that keeps the one worker from all others."""
    return until_training(engine, engine.train(small(engine).id, ENDLESS))


def queued(engine: Engine, plans: list[Plan], **settings: object) -> list[Job]:
    """Jobs on models of their own that wait until the worker is free."""
    first = busy(engine)
    jobs = [engine.train(small(engine, seed=n, **settings).id, plan) for n, plan in enumerate(plans)]
    engine.cancel(first.id)
    return [until_ended(engine, job) for job in jobs]


def seeded(plan: Plan, count: int) -> list[Plan]:
    """The same plan with other seeds and learning rates."""
    return [Plan(**{**vars(plan), "seed": n, "lr": 0.01 * (n + 1), "path": None}) for n in range(count)]


@pytest.fixture(scope="module")
def one():
    with running(workers=1) as engine:
        yield engine


@pytest.mark.parametrize("plan", [ROWS, MOMENTS], ids=["batch", "moments"])
def test_stacked_jobs_have_the_numbers_of_the_same_jobs_alone(one, plan):
    plans = seeded(plan, 5)
    stacked = queued(one, plans)
    with running(workers=1, together_max=1) as alone:
        apart = queued(alone, plans)
    assert [job.together for job in stacked] == [5] * 5
    assert [job.together for job in apart] == [1] * 5
    for together, single in zip(stacked, apart, strict=True):
        assert (together.state, together.plan) == (State.SUCCEEDED, single.plan)
        assert list(together.losses) == list(single.losses)
        assert together.metrics == single.metrics


def test_what_is_not_alike_is_not_stacked(one):
    plans = [Plan(epochs=3), Plan(epochs=4), Plan(epochs=3, optimizer="sgd"), Plan(epochs=3)]
    assert [job.together for job in queued(one, plans)] == [2, 1, 1, 2]


def test_jobs_of_one_model_are_never_in_one_stack(one):
    first, model = busy(one), small(one)
    jobs = [one.train(model.id, Plan(epochs=3)) for _ in range(3)]
    one.cancel(first.id)
    ended = [until_ended(one, job) for job in jobs]
    assert [(job.together, job.model_version) for job in ended] == [(1, 1), (1, 2), (1, 3)]


def test_one_that_is_cancelled_and_one_that_diverges_leave_the_others_alone(one):
    plan = Plan(epochs=400, batch_size=10, optimizer="sgd", data=Random(n_samples=200))
    plans = [Plan(**{**vars(plan), "seed": n, "lr": lr}) for n, lr in enumerate([0.01, 0.01, 1e6, 0.01])]
    first = busy(one)
    jobs = [one.train(small(one, seed=n).id, plan) for n, plan in enumerate(plans)]
    one.cancel(first.id)
    until_training(one, jobs[0])
    one.cancel(jobs[1].id)
    ended = [until_ended(one, job) for job in jobs]
    assert [str(job.state) for job in ended] == ["succeeded", "cancelled", "failed", "succeeded"]
    assert ended[2].reason == "diverged"
    assert [job.epoch for job in (ended[0], ended[3])] == [400] * 2
    assert [job.together for job in ended] == [4] * 4


def test_a_worker_that_dies_fails_all_that_it_trained_and_the_next_job_runs():
    with running(workers=1) as engine:
        first = busy(engine)
        jobs = [engine.train(small(engine, seed=n).id, ENDLESS) for n in range(3)]
        engine.cancel(first.id)
        for job in jobs:
            until_training(engine, job)
        (pid,) = engine.workers.pids
        os.kill(pid, signal.SIGKILL)
        ended = [until_ended(engine, job) for job in jobs]
        assert {(job.state, job.reason, job.together) for job in ended} == {(State.FAILED, "worker-died", 3)}
        until(lambda: engine.workers.restarts == 1)
        until_ready(engine)
        assert until_ended(engine, engine.train(jobs[0].model_id, Plan(epochs=2))).state is State.SUCCEEDED


def test_a_stack_is_bounded_in_runs_bytes_and_work_and_shared_out_among_workers():
    engine = Engine()
    for n in range(8):
        engine.train(small(engine, seed=n).id, Plan(epochs=3))

    def taken(workers: int = 1, max_runs: int = 100, max_bytes: int = 2**40) -> int:
        stacks = Stacks(engine.trainings, workers, max_runs, max_bytes)
        stack = stacks.take(0)
        assert stack is not None
        stacks.put_back(stack)
        return len(stack.runs)

    assert taken() == 8
    assert taken(max_runs=3) == 3
    assert taken(workers=4) == 2
    (run,) = engine.queue.take(0)
    engine.queue.put_back([run])
    assert taken(max_bytes=5 * run.bytes_stacked) == 5
    assert taken(max_bytes=1) == 1


def test_work_that_fills_a_step_is_trained_alone():
    engine = Engine()
    for n in range(3):
        engine.train(small(engine, seed=n).id, Plan(epochs=2, loss="mae", data=Random(n_samples=60_000)))
    stack = Stacks(engine.trainings, 1, 100, 2**40).take(0)
    assert stack is not None
    assert len(stack.runs) == 1


def test_what_waits_is_shared_out_among_workers_to_the_last():
    engine = Engine()
    jobs = [engine.train(small(engine, seed=n).id, Plan(epochs=3)) for n in range(8)]
    stacks = Stacks(engine.trainings, 2, 100, 2**40)
    taken = [stacks.take(0) for _ in range(5)]
    assert [stack and len(stack.runs) for stack in taken] == [4, 2, 1, 1, None]
    assert [job_id for stack in taken if stack for job_id in stack.job_ids] == [job.id for job in jobs]


def test_two_workers_train_what_is_alike_at_the_same_time():
    with running(workers=2) as engine:
        first = [engine.train(small(engine).id, ENDLESS) for _ in range(2)]
        for job in first:
            until_training(engine, job)
        jobs = [engine.train(small(engine, seed=n).id, ENDLESS) for n in range(3)]
        for job in first:
            engine.cancel(job.id)
        ended = [engine.cancel(until_training(engine, job).id) for job in jobs]
        assert [job.together for job in ended] == [2, 2, 1]


def test_an_end_that_is_told_while_another_job_is_cancelled_leaves_the_rest_alone(one):
    first = busy(one)
    jobs = [one.train(small(one, seed=n).id, Plan(epochs=50, seed=n)) for n in range(20)]
    one.cancel(first.id)

    def cancel() -> None:
        """End the last of them as soon as the first has ended, whose ends follow one another."""
        if one.ledger.get(jobs[0].id).state.terminal and not one.ledger.get(jobs[-1].id).state.terminal:
            one.cancel(jobs[-1].id)

    stop = one.ledger.watch(cancel, jobs[0].id)
    try:
        ended = [until_ended(one, job) for job in jobs]
    finally:
        stop()
    assert [job.together for job in ended] == [20] * 20
    assert {job.state for job in ended[:-1]} == {State.SUCCEEDED}
    assert ended[-1].state in (State.SUCCEEDED, State.CANCELLED)


def test_a_job_that_is_cancelled_before_its_stack_begins_is_not_sent_with_the_others():
    engine = Engine()
    jobs = [engine.train(small(engine, seed=n).id, Plan(epochs=3)) for n in range(3)]
    stack = Stacks(engine.trainings, 1, 100, 2**40).take(0)
    assert stack is not None
    engine.cancel(jobs[1].id)
    header, _ = unpack(stack.begin())
    assert [told["job"] for told in header["jobs"]] == [jobs[0].id, jobs[2].id]
    stack.lost(-9)
    assert [str(engine.ledger.get(job.id).state) for job in jobs] == ["failed", "cancelled", "failed"]


def test_a_base_and_rows_that_all_share_take_their_bytes_once():
    engine = Engine()
    base = engine.create(in_features=256, out_features=256, rank=1).base
    draw = np.random.default_rng(0)
    rows = {f"data.{name}": draw.standard_normal((500, 256)).astype(np.float32) for name in "xy"}
    plan = Plan(epochs=2, data=Inline(n_samples=500, targets="numbers"))
    for _ in range(10):
        engine.train(engine.create(base_id=base.id, rank=1).id, plan, rows)
    stack = Stacks(engine.trainings, 1, 100, 2**40).take(0)
    assert stack is not None
    assert len(stack.runs) == 10
    shared = base.nbytes + sum(array.nbytes for array in rows.values())
    assert shared < len(stack.begin()) < shared + 10 * 2**12


def test_an_array_and_its_transpose_travel_both():
    engine = Engine()
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    plan = Plan(epochs=2, data=Inline(n_samples=64, targets="numbers"))
    engine.train(small(engine).id, plan, {"data.x": x, "data.y": x.T})
    stack = Stacks(engine.trainings, 1, 100, 2**40).take(0)
    assert stack is not None
    header, arrays = unpack(stack.begin())
    keys = header["jobs"][0]["tensors"]
    assert np.array_equal(arrays[keys["data.x"]], x)
    assert np.array_equal(arrays[keys["data.y"]], x.T)


def test_every_curve_of_a_run_is_in_its_record_and_its_events(one):
    plan = Plan(epochs=200, validation=0.25, early_stopping=EarlyStopping(patience=2), data=Random(n_samples=200))
    job = until_ended(one, one.train(small(one).id, plan))
    validation = job.curve("validation_losses")
    assert len(validation) == job.epoch == len(job.losses) < 200
    best = int(np.argmin(validation))
    assert job.metrics["best_epoch"] == best + 1 == job.epoch - 2
    assert job.metrics["validation_loss"] == pytest.approx(validation[best], rel=1e-6)
    told = [event.data for event in events.since(job) if event.kind == "epoch"]
    assert [data["validation_loss"] for data in told] == list(validation)
    assert [data["loss"] for data in told] == list(job.losses)
