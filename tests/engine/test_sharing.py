"""Engines on one PostgreSQL whose database is late or full, or whose jobs vanish: none is lost, or in the way."""

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import psycopg
import pytest

from service.engine import Engine
from service.engine.sweeps import Trial
from service.errors import InsufficientStorage, ServiceError, StorageUnavailable, SweepBusy
from service.jobs.job import Job
from service.jobs.ledger import Ledger
from service.jobs.state import State
from service.models.leases import Leases
from service.models.shared import SharedStore
from tests.engine.engines import SHORT, inline, replica, small
from tests.running import until

FULL = [StorageUnavailable("the database does not answer"), InsufficientStorage("the disk is full")]


@pytest.fixture
def two(database: str) -> Iterator[tuple[Engine, Engine]]:
    """Two engines that train nothing."""
    with replica(database, 0, 1.0) as one, replica(database, 0, 1.0) as other:
        yield one, other


def taken(engine: Engine) -> list[str]:
    """The jobs that an engine gives out next, which it has from then on."""
    return [run.job_id for run in engine.trainings.sharing.claimed(engine.queue.take(0))]


def refusing(error: ServiceError) -> object:
    def refuse(*arguments: object) -> None:
        raise error

    return refuse


@pytest.mark.parametrize("error", FULL)
def test_a_job_that_could_not_be_given_back_is_to_be_had_once_its_lease_has_lapsed(two, error, monkeypatch):
    one, other = two
    job = one.train(small(one).id, SHORT)
    runs = one.trainings.sharing.claimed(one.queue.take(1))
    with monkeypatch.context() as broken:
        broken.setattr(Leases, "release", refusing(error))
        one.trainings.sharing.given_back(runs)
    until(lambda: job.id in [*taken(one), *taken(other)], 10)
    one.cancel(job.id)


@pytest.mark.parametrize("error", FULL)
def test_jobs_are_held_and_taken_again_after_a_time_in_which_the_database_refused(two, error, monkeypatch):
    one, other = two
    job = one.train(small(one).id, SHORT)
    with monkeypatch.context() as broken:
        for name in ("claim", "renew"):
            broken.setattr(Leases, name, refusing(error))
        assert taken(one) == []
        time.sleep(0.5)  # the thread that holds leases meets it too
    until(lambda: taken(one) == [job.id])
    time.sleep(1.5)
    assert other.store.leases.free([job.id]) == []  # it is held again
    one.cancel(job.id)


@pytest.mark.parametrize("where", ["waits", "runs", "is away"])
def test_a_job_that_ended_and_was_forgotten_elsewhere_before_one_learnt_of_it_is_not_in_the_way(two, where):
    one, other = two
    model = small(other)
    job = other.train(model.id, SHORT)
    one.store.catch_up()
    runs = [] if where == "waits" else one.queue.take(1)
    if where == "is away":
        taken(other)
        one.trainings.sharing.claimed(runs)
    with one.store._lock:  # it learns nothing meanwhile
        other.cancel(job.id)
        other.trainings.remove(job.id)
    if where == "runs":
        assert one.trainings.sharing.claimed(runs) == []
    one.store.catch_up()
    assert one.ledger.find(job.id) is None
    later = one.train(model.id, SHORT)
    assert taken(one) == [later.id]
    one.cancel(later.id)


def test_a_job_waits_for_a_database_that_is_late_as_it_begins(database):
    with replica(database, 0) as engine:
        job = engine.train(small(engine).id, SHORT)
        (run,) = engine.trainings.sharing.claimed(engine.queue.take(1))
        with psycopg.connect(database.replace("postgresql+psycopg", "postgresql")) as slow:
            slow.execute("SELECT writes FROM progress FOR UPDATE")  # as whoever writes much
            begun: list[object] = []
            beginning = threading.Thread(target=lambda: begun.append(run.begin(1)))
            beginning.start()
            beginning.join(7)  # longer than a server waits for its turn
            assert beginning.is_alive()
            slow.rollback()
            beginning.join(10)
        assert begun[0] is not None
        assert engine.ledger.get(job.id).state is State.RUNNING
        engine.cancel(job.id)


def test_a_job_is_taken_over_at_the_next_try_where_it_could_not_be_read(two, monkeypatch):
    one, other = two
    job = one.train(small(one).id, SHORT)
    until(lambda: other.queue.sent(job.id))
    with monkeypatch.context() as broken:
        broken.setattr(other.ledger, "swap", refusing(FULL[0]))
        with pytest.raises(StorageUnavailable):
            other.trainings.sharing._take_over(job.id)
    assert [run.job_id for run in other.queue.away] == [job.id]
    other.trainings.sharing._take_over(job.id)
    assert (len(other.queue), other.queue.away) == (1, [])
    one.cancel(job.id)


def test_a_start_that_has_too_many_jobs_misses_nothing_that_another_server_makes_meanwhile(two, database, monkeypatch):
    one, _ = two
    model = small(one)
    for _ in range(3):
        one.cancel(one.train(model.id, SHORT).id)
    made: list[str] = []
    restore = Ledger.restore

    def late(ledger: Ledger, jobs: Sequence[Job]) -> None:
        made.append(small(one).id)
        restore(ledger, jobs)

    monkeypatch.setattr(Ledger, "restore", late)
    with replica(database, 0, 1.0, keep_jobs=1) as third:
        until(lambda: made[0] in third.registry, 5)


def test_a_server_that_leaves_does_not_wait_for_jobs_of_others(two, database):
    one, _ = two
    job = one.train(small(one).id, SHORT)
    with replica(database, 0) as third:
        assert taken(one) == [job.id]
        third.store.catch_up()
        third.trainings.sharing.claimed(third.queue.take(0))
        began = time.monotonic()
    assert time.monotonic() - began < 3
    one.cancel(job.id)


def test_a_sweep_with_a_job_that_was_accepted_elsewhere_a_moment_ago_is_not_deleted(two):
    one, other = two
    plan, rows = inline()
    sweep = one.sweeps.start({"in_features": 64, "out_features": 64}, [Trial({}, {}, plan)] * 2, rows)
    for member in sweep.members:
        one.cancel(member.job_id)
    other.store.catch_up()
    with one.store._lock:  # it learns nothing meanwhile
        jobs = [other.train(member.model_id, SHORT) for member in sweep.members]
        with pytest.raises(SweepBusy):
            one.sweeps.remove(sweep.id, keep=0)
    for job in jobs:
        other.cancel(job.id)


def test_of_a_data_set_that_grows_elsewhere_only_what_is_new_is_read(two, monkeypatch):
    one, other = two
    draw = np.random.default_rng(0)
    read: list[int] = []
    rows = SharedStore.rows

    def counted(store: SharedStore, table: str, *columns: str, **where: object) -> Iterator[dict[str, object]]:
        for row in rows(store, table, *columns, **where):
            read.append(table == "uploads" and "tensors" in columns and store is other.store)
            yield row

    monkeypatch.setattr(SharedStore, "rows", counted)
    pieces = [{name: draw.standard_normal((5, 3)).astype(np.float32) for name in "xy"} for _ in range(4)]
    dataset = one.datasets.upload(pieces[0])
    for count, piece in enumerate(pieces[1:], start=1):
        until(lambda count=count: [dataset.uploads for dataset in other.datasets.all()] == [count])
        dataset = one.datasets.append(dataset.id, piece)
    until(lambda: other.datasets.get(dataset.id).uploads == 4)
    assert sum(read) == 4
    assert other.datasets.get(dataset.id).source == dataset.source
    for name, array in dataset.arrays().items():
        assert np.array_equal(other.datasets.get(dataset.id).arrays()[name], array)
    one.delete_dataset(dataset.id)
