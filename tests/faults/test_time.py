"""A clock that jumps by a day, forward or back, while the service runs and while it does not (F13)."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from ulid import ULID

from service.clock import Instant, instant
from service.engine import Capacity, Engine
from service.jobs.job import Job
from service.jobs.state import State
from service.models import job_rows
from service.models.replies import Replies, Reply
from service.models.sql import SqlStore
from service.models.store import MemoryOnly
from service.training.plan import Plan
from service.training.sources import Random
from tests.engine.engines import running, small, until_ended

DAY = timedelta(days=1)
PLAN = Plan(epochs=3, seed=1, data=Random(n_samples=20, seed=1))


class Jumping(datetime):
    """A wall clock that somebody sets."""

    off = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.off


class Dated(ULID):
    """A ULID of the moment that this clock tells."""

    def __init__(self, value: bytes | None = None) -> None:
        super().__init__(value or ULID.from_timestamp(time.time() + Jumping.off.total_seconds()).bytes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Jumping]]:
    """The wall clock of the service, and of the ids that it makes."""
    monkeypatch.setattr("service.clock.datetime", Jumping)
    monkeypatch.setattr("service.ids.ULID", Dated)
    Jumping.off = timedelta()
    yield Jumping
    Jumping.off = timedelta()


@pytest.mark.parametrize("jump", [DAY, -DAY, timedelta(hours=1), timedelta(seconds=-1)])
def test_durations_and_order_are_right_though_the_clock_jumps_under_a_running_job(
    clock: type[Jumping], jump: timedelta
) -> None:
    with running(workers=1) as engine:
        models = [small(engine, seed=1)]
        job = engine.train(models[0].id, PLAN)
        clock.off = jump
        models.append(small(engine, seed=1))
        ended = until_ended(engine, job)
        models.append(small(engine, seed=1))
        later = until_ended(engine, engine.train(models[0].id, PLAN))
        assert 0 <= (ended.duration_seconds or 0) < 3_600 > (later.duration_seconds or 0) >= 0
        assert [model.id for model in engine.registry.all()] == [model.id for model in models]
        assert sorted(model.id for model in models) == [model.id for model in models]
        assert job.id < later.id
        places = [place for place, _, _ in engine.ledger.feed(0)]
        assert places == sorted(places)


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_restart_after_the_clock_has_jumped_keeps_the_order_and_makes_no_duration_negative(
    clock: type[Jumping], tmp_path: Path, jump: timedelta
) -> None:
    def engine() -> Engine:
        return Engine(Capacity(workers=1), store=SqlStore(f"sqlite:///{tmp_path}/lora.db"))

    first = engine()
    before = [small(first, seed=1).id for _ in range(3)]
    first.close()
    clock.off = jump
    second = engine()
    before.append(small(second, seed=1).id)
    second.close()
    third = engine()
    assert [model.id for model in third.registry.all()] == before == sorted(before)
    third.close()


def test_a_job_that_began_in_the_future_has_no_negative_duration(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/lora.db")
    began = instant()
    job = Job.queued("job_1", "mdl_1", 1, PLAN, began.wall).moved(State.RUNNING, began)
    store.write(job_rows.changed(job))
    (kept,) = job_rows.jobs(store, Instant(began.wall - DAY, 5.0))
    assert kept.moved(State.FAILED, Instant(began.wall - DAY, 6.0)).duration_seconds == 1
    store.close()


@pytest.mark.parametrize("jump", [DAY, -DAY, 400 * DAY])
def test_no_reply_lapses_because_the_clock_jumps(clock: type[Jumping], jump: timedelta) -> None:
    replies = Replies(MemoryOnly())
    assert replies.begin("key", "f") is None
    replies.end("key", Reply("f", "mdl_1", 201))
    clock.off = jump
    assert replies.begin("other", "f") is None
    replies.end("other", Reply("f", "mdl_2", 201))
    assert [getattr(replies.begin(key, "f"), "made", None) for key in ("key", "other")] == ["mdl_1", "mdl_2"]


def test_the_time_that_is_told_is_that_of_the_wall_clock(clock: type[Jumping]) -> None:
    clock.off = DAY
    assert abs(instant().wall - datetime.now(UTC) - DAY) < timedelta(minutes=1)
