"""Jobs in real worker processes: what they publish, how they end, and what is left when something dies."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import service
from service.codecs.message import Arrays, pack, unpack
from service.engine import Engine
from service.engine.run import Held, Run
from service.engine.stack import Stack
from service.errors import Draining, ModelBusy, ModelNotFound
from service.jobs import events
from service.jobs.job import Job
from service.jobs.state import State
from service.models.model import LoadedModel as Model
from service.training import datasets
from service.training.lesson import Lesson
from service.training.plan import Plan, from_dict
from service.training.sources import Digits, Random, Teacher
from tests.engine.engines import (
    ENDLESS,
    SHORT,
    driven,
    endless,
    inline,
    running,
    small,
    until_ended,
    until_ready,
    until_training,
)
from tests.running import DEADLINE_SECONDS, gone, until

STATE = {"path": "batch", "epoch": 0, "steps": 3, "over": False, "watched": {}}


def run_of(engine: Engine, job: Job, rows: Arrays | None = None) -> Run:
    """The run of a job."""
    spec = engine.registry.get(job.model_id).spec
    return Run(job, spec, engine.trainings.books, Held(engine.trainings.books, job.given_id, rows), {})


def task_of(engine: Engine, *runs: Run) -> Stack:
    """A task of runs, for a worker played by the test."""
    return Stack(runs, engine.queue.done)


def test_a_worker_is_told_all_it_needs():
    engine = Engine()
    model = small(engine, train_bias=True, dropout=0.25, alpha=8.0)
    plan, rows = inline()
    job = engine.train(model.id, plan, rows)
    run = run_of(engine, job, rows)
    header, arrays = unpack(task_of(engine, run).begin())
    (told,) = header["jobs"]
    tensors = {name: arrays[key] for name, key in told["tensors"].items()}
    assert engine.ledger.get(job.id).state is State.RUNNING
    assert (header["do"], told["job"], told["dropout"]) == ("train", job.id, 0.25)
    assert (told["layers"], told["activations"]) == ([{"scaling": 2.0, "frozen_rank": 0}], [])
    assert from_dict(told["plan"]) == job.plan
    assert tensors.keys() == {"layer.weight", "layer.bias", "layer.A", "layer.B", "layer.own_bias", "data.x", "data.y"}
    assert np.array_equal(tensors["layer.weight"], model.base.weight.numpy())
    assert np.array_equal(tensors["data.x"], rows["data.x"])


def test_what_several_jobs_share_travels_once():
    engine = Engine()
    first = small(engine)
    models = [first, *(engine.create(base_id=first.base.id, rank=4) for _ in range(2))]
    plan, rows = inline()
    jobs = [engine.train(model.id, plan, rows) for model in models]
    header, arrays = unpack(task_of(engine, *(run_of(engine, job, rows) for job in jobs)).begin())
    keys = [told["tensors"] for told in header["jobs"]]
    for name in ("layer.weight", "layer.bias", "data.x", "data.y"):
        assert len({each[name] for each in keys}) == 1
    assert len({each["layer.A"] for each in keys}) == 3
    assert len(arrays) == 4 + 2 * 3
    assert [engine.ledger.get(job.id).together for job in jobs] == [3, 3, 3]


def test_what_a_worker_says_becomes_the_record():
    engine = Engine()
    model = small(engine)
    job = engine.train(model.id, SHORT)
    task = task_of(engine, run_of(engine, job))
    task.begin()
    assert not task.heard(pack({"say": "epochs", "jobs": [job.id]}, {"losses": np.array([[3.0], [2.0]])}))
    assert not task.heard(pack({"say": "epochs", "jobs": [job.id]}, {"losses": np.array([[1.0]])}))
    assert list(engine.ledger.get(job.id).losses) == [3.0, 2.0, 1.0]
    trained = {name: np.full(tensor.shape, 0.5, np.float32) for name, tensor in model.adapter.items()}
    assert not task.heard(
        pack({"say": "succeeded", "job": job.id, "metrics": {"final_loss": 0.75}, "state": STATE}, trained)
    )
    assert task.heard(pack({"say": "done"}))
    done, new = engine.ledger.get(job.id), engine.registry.get(model.id)
    assert (done.state, done.model_version, done.metrics) == (State.SUCCEEDED, 1, {"final_loss": 0.75})
    assert (new.version, new.last_loss) == (1, 0.75)
    assert new.updated_at == done.finished_at
    assert all(bool((tensor == 0.5).all()) for tensor in new.adapter.values())


@pytest.mark.parametrize("last", ["epochs", "succeeded", "failed", "lost"])
def test_nothing_a_worker_says_changes_a_job_that_was_cancelled(last):
    engine = Engine()
    model = small(engine)
    job = engine.train(model.id, SHORT)
    task = task_of(engine, run_of(engine, job))
    task.begin()
    cancelled = engine.cancel(job.id)
    if last == "lost":
        task.lost(-9)
    else:
        said = {
            "say": last,
            "job": job.id,
            "jobs": [job.id],
            "metrics": {"final_loss": 1.0},
            "state": STATE,
            "reason": "diverged",
        }
        arrays = {"losses": np.ones((1, 1))} if last == "epochs" else {"A": np.zeros((4, 64), np.float32)}
        assert not task.heard(pack({**said, "detail": "x"}, arrays))
    assert engine.ledger.get(job.id) is cancelled
    assert engine.registry.get(model.id) is model


def test_a_job_that_was_cancelled_before_it_began_is_not_sent():
    engine = Engine()
    job = engine.train(small(engine).id, SHORT)
    engine.cancel(job.id)
    assert task_of(engine, run_of(engine, job)).begin() is None


@pytest.mark.parametrize(("status", "how"), [(-9, "was killed by signal 9"), (3, "ended with status 3")])
def test_a_worker_that_dies_takes_its_job_along_and_says_how(status, how):
    engine = Engine()
    job = engine.train(small(engine).id, SHORT)
    task = task_of(engine, run_of(engine, job))
    task.begin()
    task.lost(status)
    failed = engine.ledger.get(job.id)
    assert (failed.state, failed.reason) == (State.FAILED, "worker-died")
    assert failed.detail == f"the process that trained {how}; the model keeps the version it had"


def fitted_here(model: Model, plan: Plan) -> tuple[list[float], dict[str, torch.Tensor], float]:
    """The losses, the adapter and the final loss of a run in this process."""
    rows = datasets.load(plan.data, model.layer, {})
    losses, fitted = driven(Lesson(model.layer, plan, rows, dropout=model.spec.dropout))
    return losses, fitted.layer.adapter(), fitted.metrics["final_loss"]


@pytest.mark.parametrize(
    ("settings", "plan"),
    [
        ({}, Plan(epochs=5, seed=1)),
        ({"dropout": 0.5, "train_bias": True}, Plan(epochs=4, seed=2, batch_size=16, data=Random(n_samples=100))),
        (
            {"init": "normal", "bias": False},
            Plan(epochs=3, lr=0.1, optimizer="sgd", momentum=0.9, seed=3, loss="huber"),
        ),
        ({"use_rslora": True}, Plan(epochs=3, seed=4, data=Teacher(teacher_rank=2, noise=0.1), optimizer="adamw")),
        ({"alpha": 16.0}, Plan(epochs=3, seed=5, data=Digits(split="test"), loss="cross_entropy")),
    ],
)
def test_a_job_does_what_fit_does_here_and_publishes_it(engine, settings, plan):
    model = small(engine, **settings)
    job = until_ended(engine, engine.train(model.id, plan))
    losses, adapter, final_loss = fitted_here(model, job.plan)
    assert (job.state, job.reason, job.epoch, job.model_version) == (State.SUCCEEDED, None, plan.epochs, 1)
    assert list(job.losses) == pytest.approx(losses, rel=1e-4)
    assert job.metrics["final_loss"] == pytest.approx(final_loss, rel=1e-4)
    assert job.created_at <= job.started_at <= job.finished_at
    assert job.duration_seconds > 0
    new = engine.registry.get(model.id)
    assert (new.version, new.last_loss, new.updated_at) == (1, job.metrics["final_loss"], job.finished_at)
    assert new.base is model.base
    assert new.adapter.keys() == adapter.keys()
    assert all(torch.allclose(new.adapter[name], adapter[name], atol=1e-4) for name in adapter)
    assert new.nbytes == model.nbytes
    assert engine.forward(model.id, np.zeros((1, 64), np.float32)).model_version == 1


def test_rows_of_the_request_are_trained_on_and_then_let_go(engine):
    model = small(engine)
    before = engine.budget.used
    plan, rows = inline(epochs=200)
    job = until_ended(engine, engine.train(model.id, plan, rows))
    assert job.state is State.SUCCEEDED
    assert job.losses[-1] < job.losses[0]
    until(lambda: engine.budget.used == before + model.nbytes)  # of the version before
    y = engine.forward(model.id, rows["data.x"]).outputs
    assert float(((y - rows["data.y"]) ** 2).mean()) == pytest.approx(job.metrics["final_loss"], rel=1e-3)


def test_jobs_on_one_model_run_in_turn_each_from_the_version_it_finds(engine):
    model = small(engine)
    jobs = [engine.train(model.id, Plan(epochs=20, seed=seed, data=Random(n_samples=30))) for seed in range(4)]
    ended = [until_ended(engine, job) for job in jobs]
    assert [job.model_version for job in ended] == [1, 2, 3, 4]
    assert all(one.finished_at <= two.started_at for one, two in pairwise(ended))
    expected = model
    for job in ended:
        losses, adapter, final_loss = fitted_here(expected, job.plan)
        assert list(job.losses) == pytest.approx(losses, rel=1e-3)
        version = expected.next(job.finished_at, "training", loss=final_loss)
        expected = replace(expected.published(version, ()), adapter=adapter)
    found = engine.registry.get(model.id)
    assert all(torch.allclose(found.adapter[name], expected.adapter[name], atol=1e-3) for name in "AB")


def test_two_workers_train_two_models_at_once(engine):
    jobs = [engine.train(small(engine).id, ENDLESS) for _ in range(2)]
    until(lambda: [engine.ledger.get(job.id).state for job in jobs] == [State.RUNNING] * 2)
    for job in jobs:
        until_training(engine, job)
        assert engine.cancel(job.id).state is State.CANCELLED


def test_a_running_job_is_cancelled_at_once_and_the_next_one_runs(engine):
    model = small(engine)
    running_job, waiting = engine.train(model.id, ENDLESS), engine.train(model.id, SHORT)
    until_training(engine, running_job)
    cancelled = engine.cancel(running_job.id)
    assert (cancelled.state, cancelled.reason, cancelled.model_version) == (State.CANCELLED, None, None)
    assert engine.cancel(running_job.id) is cancelled
    assert until_ended(engine, waiting).model_version == 1
    assert engine.ledger.get(running_job.id) is cancelled
    assert len(cancelled.losses) == cancelled.epoch >= 1


def test_a_cancelled_job_frees_its_worker_and_its_rows_without_harm(engine):
    model = small(engine)
    before, restarts = engine.budget.used, engine.workers.restarts
    plan, rows = endless()
    for _ in range(3):
        until_training(engine, job := engine.train(model.id, plan, rows))
        engine.cancel(job.id)
        until(lambda: engine.budget.used == before)
    assert engine.workers.restarts == restarts


def test_a_cancel_at_any_moment_ends_the_job_once(engine):
    model = small(engine)
    draw = random.Random(0)
    plan, rows = inline(epochs=20)
    before, restarts = engine.budget.used, engine.workers.restarts
    ended = []
    for _ in range(40):
        job = engine.train(model.id, plan, rows)
        moment = time.monotonic() + draw.choice([0, draw.uniform(0, 0.06)])
        while time.monotonic() < moment and not engine.ledger.get(job.id).state.terminal:
            os.sched_yield()
        with ThreadPoolExecutor(2) as threads:
            states = {future.result().state for future in [threads.submit(engine.cancel, job.id) for _ in range(2)]}
        ended.append(engine.ledger.get(job.id))
        assert states == {ended[-1].state}
    earlier = len(engine.registry.get(model.id).kept) - 1
    until(lambda: engine.budget.used == before + earlier * model.nbytes)
    assert {job.state for job in ended} <= {State.SUCCEEDED, State.CANCELLED}
    assert [engine.ledger.get(job.id) for job in ended] == ended
    for job in ended:
        told = events.since(job)
        assert [event.number for event in told] == list(range(1, events.count(job) + 1))
        assert [event.kind for event in told].count("done") == 1
        assert len(job.losses) == job.epoch
    published = [job.model_version for job in ended if job.state is State.SUCCEEDED]
    assert published == list(range(1, len(published) + 1))
    assert engine.registry.get(model.id).version == len(published)
    assert engine.workers.restarts == restarts


def test_a_cancelled_job_may_be_forgotten_before_its_worker_knows(engine, caplog):
    model, restarts = small(engine), engine.workers.restarts
    for _ in range(4):
        job = engine.train(model.id, ENDLESS)
        until_training(engine, job)
        engine.cancel(job.id)
        engine.ledger.remove(job.id)
    until_ended(engine, engine.train(model.id, SHORT))
    assert engine.workers.restarts == restarts
    assert caplog.text == ""


@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd", "lr": 1e6}, {"optimizer": "sgd", "lr": 1e3, "batch_size": 10}]
)
def test_a_run_that_diverges_keeps_the_old_version_and_the_losses_so_far(engine, settings):
    model = small(engine, init="normal")
    job = until_ended(engine, engine.train(model.id, Plan(epochs=1_000, data=Random(n_samples=50), **settings)))
    assert (job.state, job.reason, job.model_version) == (State.FAILED, "diverged", None)
    assert "no longer finite" in job.detail
    assert len(job.losses) == job.epoch < 1_000
    assert np.isfinite(np.array(job.losses, dtype=np.float32)).all()
    assert engine.registry.get(model.id) is model
    assert events.since(job)[-1].data == {"state": "failed", "reason": "diverged"}
    assert until_ended(engine, engine.train(model.id, SHORT)).model_version == 1


def test_the_job_of_a_killed_worker_fails_within_a_second_and_the_next_one_runs(engine):
    model = small(engine)
    before, restarts = engine.budget.used, engine.workers.restarts
    plan, rows = endless()
    for kills in range(1, 4):
        job, waiting = engine.train(model.id, plan, rows), engine.train(model.id, SHORT)
        until_training(engine, job)
        pid = busiest(engine.workers.pids)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        dead = until_ended(engine, job)
        seconds = time.monotonic() - killed
        assert (dead.state, dead.reason) == (State.FAILED, "worker-died")
        assert dead.detail == "the process that trained was killed by signal 9; the model keeps the version it had"
        assert len(dead.losses) == dead.epoch >= 1
        assert until_ended(engine, waiting).model_version == kills
        until(lambda expected=restarts + kills: engine.workers.restarts == expected)
        until_ready(engine)
        assert engine.workers.restarts == restarts + kills
        assert pid not in engine.workers.pids
        until(lambda expected=before + kills * model.nbytes: engine.budget.used == expected)  # of earlier versions
        if seconds < 1:  # once is enough: a machine that stalls is late by itself
            break
    assert seconds < 1


def busiest(pids: list[int]) -> int:
    """The process that has used the most time of late."""

    def used(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])

    before = {pid: used(pid) for pid in pids}
    until(lambda: any(used(pid) > before[pid] + 5 for pid in pids))
    return max(pids, key=lambda pid: used(pid) - before[pid])


def test_a_model_may_be_deleted_by_force_while_it_trains(engine):
    model = small(engine)
    plan, rows = endless()
    job, waiting = (engine.train(model.id, plan, rows) for _ in range(2))
    until_training(engine, job)
    with pytest.raises(ModelBusy, match="is running on model"):
        engine.delete(model.id)
    engine.delete(model.id, force=True)
    assert [engine.ledger.get(one.id).state for one in (job, waiting)] == [State.CANCELLED] * 2
    with pytest.raises(ModelNotFound):
        engine.forward(model.id, rows["data.x"])
    until(lambda: engine.budget.used == 0)
    other = small(engine)
    assert until_ended(engine, engine.train(other.id, SHORT)).model_version == 1


def test_a_worker_that_takes_nothing_in_holds_up_neither_a_delete_nor_other_models():
    with running() as engine:
        stuck, other = engine.create(in_features=2_048, out_features=2_048, rank=1), small(engine)
        (pid,) = engine.workers.pids
        os.kill(pid, signal.SIGSTOP)
        try:
            job = engine.train(stuck.id, SHORT)
            until(lambda: engine.ledger.get(job.id).state is State.RUNNING)
            deleting = threading.Thread(target=engine.delete, args=(stuck.id,), kwargs={"force": True}, daemon=True)
            deleting.start()
            deleting.join(DEADLINE_SECONDS)
            assert not deleting.is_alive()
            waiting = engine.train(other.id, SHORT)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert engine.ledger.get(job.id).state is State.CANCELLED
        assert until_ended(engine, waiting).state is State.SUCCEEDED
        assert engine.workers.restarts == 0


@pytest.mark.parametrize(
    ("error", "reason"), [(MemoryError(), "out-of-memory"), (RuntimeError("a bug"), "internal-error")]
)
def test_what_breaks_on_the_servers_side_is_not_told_as_a_workers_death(error, reason):
    engine = Engine()
    job = engine.train(small(engine).id, SHORT)
    task = task_of(engine, *engine.queue.take(0))
    task.begin()
    task.broke(error)
    task.ended()
    failed = engine.ledger.get(job.id)
    assert (failed.state, failed.reason) == (State.FAILED, reason)
    assert "a bug" not in failed.detail
    assert engine.train(failed.model_id, SHORT)
    assert len(engine.queue.take(0)) == 1


def test_a_model_may_be_deleted_by_force_the_moment_its_job_starts(engine, caplog):
    model, restarts = small(engine), engine.workers.restarts

    def force() -> None:
        if any(job.state is State.RUNNING for job in engine.ledger.active(model.id)):
            engine.delete(model.id, force=True)

    stop = engine.ledger.watch(force)
    try:
        job = until_ended(engine, engine.train(model.id, SHORT))
    finally:
        stop()
    assert job.state is State.CANCELLED
    for other in [engine.train(small(engine).id, ENDLESS) for _ in range(2)]:  # one for each worker
        until_training(engine, other)
    assert engine.workers.restarts == restarts
    assert caplog.text == ""


def test_every_forward_is_that_of_one_published_version(engine):
    model = small(engine, init="normal")
    published = {0: model}

    def note() -> None:
        now = engine.registry.get(model.id)
        published.setdefault(now.version, now)

    stop = engine.ledger.watch(note)
    x = np.random.default_rng(0).standard_normal((7, 64)).astype(np.float32)
    answers = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            answers.append(engine.forward(model.id, x))

    def hear() -> None:
        enough = len(answers) + 5  # more than are under way
        until(lambda: len(answers) >= enough)

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        try:
            hear()
            for seed in range(6):
                until_ended(engine, engine.train(model.id, Plan(epochs=30, seed=seed, data=Random(n_samples=30))))
                hear()
        finally:
            over.set()
    for asked in asking:
        asked.result()
    stop()
    assert sorted(published) == list(range(7))
    expected = {version: of.layer(torch.from_numpy(x)).numpy() for version, of in published.items()}
    assert {answer.model_version for answer in answers} == set(range(7))
    assert all(np.abs(answer.outputs - expected[answer.model_version]).max() < 1e-4 for answer in answers)
    assert all(np.abs(expected[n] - expected[n + 1]).max() > 1e-2 for n in range(6))


def test_threads_that_create_train_cancel_and_delete_leave_nothing_behind(engine):
    start = threading.Barrier(6)
    plan, rows = inline(epochs=5)

    def work(worker: int) -> None:
        start.wait()
        for number in range(6):
            model = small(engine, seed=number % 2)
            job = engine.train(model.id, plan, rows)
            if (number + worker) % 3 == 0:
                engine.cancel(job.id)
            elif (number + worker) % 3 == 1:
                assert until_ended(engine, job).model_version == 1
            engine.delete(model.id, force=True)
            assert engine.ledger.get(job.id).state.terminal

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert len(engine.registry) == 0
    until(lambda: engine.budget.used == 0)


def test_closing_interrupts_what_runs_and_what_waits_and_leaves_no_process():
    with running(workers=1) as engine:
        model = small(engine)
        before = engine.budget.used
        plan, rows = endless()
        jobs = [engine.train(model.id, plan, rows) for _ in range(3)]
        until_training(engine, jobs[0])
        pids = engine.workers.pids
        engine.close()
        ended = [engine.ledger.get(job.id) for job in jobs]
        assert [(job.state, job.reason) for job in ended] == [(State.FAILED, "interrupted")] * 3
        assert len(ended[0].losses) == ended[0].epoch >= 1
        assert all(gone(pid) for pid in pids)
        assert engine.registry.get(model.id).version == 0
        assert engine.budget.used == before
        with pytest.raises(Draining):
            engine.train(model.id, SHORT)


SERVER = """
import sys, time
from service.engine import Capacity, Engine
from service.training.plan import Plan
from service.training.sources import Random

engine = Engine(Capacity(workers=2))
engine.start()
while engine.workers.ready < 2:
    time.sleep(0.01)
model = engine.create(in_features=64, out_features=64)
job = engine.train(model.id, Plan(epochs=10_000, batch_size=20, data=Random(n_samples=5_000)))
while not engine.ledger.get(job.id).epoch:
    time.sleep(0.01)
print(*engine.workers.pids, flush=True)
sys.stdin.read()
"""


def test_workers_end_when_their_server_is_killed():
    root = Path(service.__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            pids = [int(pid) for pid in server.stdout.readline().split()]
            assert len(pids) == 2
            assert not any(gone(pid) for pid in pids)
        finally:
            server.kill()
        until(lambda: all(gone(pid) for pid in pids))


def test_an_engine_whose_workers_are_not_ready_yet_takes_jobs_and_closes():
    engine = Engine()
    engine.start()
    job = engine.train(small(engine).id, ENDLESS)
    until(lambda: len(engine.workers.pids) == len(engine.workers))
    pids = engine.workers.pids
    engine.close()
    assert engine.ledger.get(job.id).reason == "interrupted"
    assert all(gone(pid) for pid in pids)


def test_rows_of_float64_are_trained_on_as_float32(engine):
    model = small(engine)
    plan, rows = inline()
    job = until_ended(
        engine, engine.train(model.id, plan, {name: array.astype(np.float64) for name, array in rows.items()})
    )
    again = until_ended(engine, engine.train(small(engine).id, plan, rows))
    assert job.state is again.state is State.SUCCEEDED
