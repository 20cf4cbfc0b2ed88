"""A write that goes wrong, whichever it is and however it does: things are as before or as after, never between."""

import gc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine import Engine
from service.engine.sweeps import Trial
from service.errors import InsufficientStorage, ServiceError, StorageUnavailable
from service.models.replies import KEPT_HOURS, Replies
from tests.engine.worlds import (
    FACTS,
    HELD_OUT,
    PLAN,
    REPLY,
    SIZES,
    World,
    copied,
    counted,
    imported,
    inline,
    lineage,
    outliving,
    populate,
    rows,
    snapshot,
    succeed,
    world,
)
from tests.models.faults import broken_commit, counted_commits, full_disk, locked, read_only
from tests.running import until


@dataclass(frozen=True)
class Step:
    """Something that is written, in so many transactions."""

    do: Callable[[World], object]
    writes: int = 1
    waits: bool = False  # and tries again, since nobody is there who could be told
    quiet: bool = False  # it may fail, and nobody is told


def checkpoint(at: World) -> None:
    at.run.checkpoint(dict(FACTS), {"state.parameters": np.ones(5_000), "state.curves.losses": np.array([2.0, 1.0])})


def create_with_key(at: World) -> None:
    """As the API does: the answer is known from when the model is stored."""
    assert at.engine.replies.begin("new", REPLY.fingerprint) is None
    reply = None
    try:
        at.engine.create(**SIZES, seed=9, also=lambda model: at.engine.replies.kept("new", REPLY))
        reply = REPLY
    finally:
        at.engine.replies.end("new", reply)


def roll_back_with_key(at: World) -> None:
    """As the API does, likewise."""
    assert at.engine.replies.begin("back", REPLY.fingerprint) is None
    reply = None
    try:
        at.engine.adapters.roll_back(at.ids["first"], also=lambda model: at.engine.replies.kept("back", REPLY))
        reply = REPLY
    finally:
        at.engine.replies.end("back", reply)


def start_sweep(at: World) -> None:
    at.engine.sweeps.start({**SIZES, "seed": 5}, [Trial({"lr": lr}, {}, replace(HELD_OUT, lr=lr)) for lr in (0.1, 0.2)])


STEPS = {
    "a model on a new base": Step(lambda at: at.engine.create(**SIZES, seed=9, name="new")),
    "a model on a known base": Step(
        lambda at: at.engine.create(base_id=at.engine.registry.get(at.ids["first"]).base_id, rank=3, seed=9)
    ),
    "a model of two layers": Step(
        lambda at: at.engine.create(
            layers=[
                {**SIZES, "rank": 2, "activation": "relu"},
                {"in_features": SIZES["out_features"], "out_features": 3, "rank": 1},
            ],
            seed=9,
        )
    ),
    "a model with a key": Step(create_with_key),
    "another name": Step(lambda at: at.engine.update(at.ids["first"], name="ñ", metadata={"a": "b"})),
    "an adapter": Step(lambda at: at.engine.adapters.adopt(at.ids["first"], imported())),
    "a rollback": Step(lambda at: at.engine.adapters.roll_back(at.ids["first"], 0)),
    "a rollback with a key": Step(roll_back_with_key),
    "a model that goes with its base": Step(lambda at: at.engine.delete(at.ids["spare"])),
    "a model that goes, and whose job had ended": Step(lambda at: at.engine.delete(at.ids["first"])),
    "a model that goes with its jobs": Step(lambda at: at.engine.delete(at.ids["second"], force=True)),
    "a job": Step(lambda at: at.engine.train(at.ids["first"], PLAN)),
    "a job with rows": Step(lambda at: at.engine.train(at.ids["first"], *inline(30))),
    "a job's checkpoint": Step(checkpoint, quiet=True),
    "a job's success": Step(lambda at: succeed(at.run), waits=True),
    "a job's failure": Step(lambda at: at.run.failed("diverged", "the loss is nan"), waits=True),
    "a job that is cancelled": Step(lambda at: at.engine.cancel(at.ids["going"])),
    "a job that is cancelled before it began": Step(lambda at: at.engine.cancel(at.ids["waiting"])),
    "jobs that are cancelled together": Step(
        lambda at: at.engine.cancel_all([at.ids[name] for name in ("done", "going", "waiting")])
    ),
    "a job that is forgotten": Step(lambda at: at.engine.ledger.remove(at.ids["done"])),
    "a data set": Step(lambda at: at.engine.datasets.upload(rows(30))),
    "more rows": Step(lambda at: at.engine.datasets.append(at.ids["dataset"], rows(30))),
    "a data set that goes": Step(lambda at: at.engine.delete_dataset(at.ids["dataset"])),
    "a sweep": Step(start_sweep),
    "a sweep that goes with its losers": Step(lambda at: at.engine.sweeps.remove(at.ids["sweep"])),
}
WRITES = [(name, number) for name, step in STEPS.items() for number in range(1, step.writes + 1)]
FAULTS = {"a full disk": full_disk, "a lock": locked, "no right to write": read_only}

Seen = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where the tests of this file have their world, and what its steps lead to when nothing goes wrong."""

    folder: Path
    ids: Mapping[str, str]
    known: dict[str, tuple[Seen, Seen]]

    def opened(self) -> AbstractContextManager[World]:
        return world(self.folder / "lora.db", self.folder / "used", self.ids)

    def restarted(self) -> AbstractContextManager[Engine]:
        return copied(self.folder / "used" / "lora.db", self.folder / "looked at")

    def seen(self, at: World) -> Seen:
        """What is in memory, with the bytes that are counted; and on the disk, as the next start finds it."""
        gc.collect(1)  # what an error has held on to
        memory = {**snapshot(at.engine), "bytes": at.engine.budget.used}
        with self.restarted() as fresh:
            rows = {**counted(fresh), "progress": 1}
            return memory, {**snapshot(fresh), "versions": lineage(fresh), "rows": rows}

    def reference(self, name: str) -> tuple[Seen, Seen]:
        """What there is before and after a step that nothing disturbs."""
        if name not in self.known:
            with self.opened() as at:
                before = self.seen(at)
                with counted_commits(at.engine.store) as commits:
                    STEPS[name].do(at)
                self.known[name] = before, self.seen(at)
            assert len(commits) == STEPS[name].writes
        return self.known[name]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("world")
    return Place(folder, populate(folder / "lora.db"), {})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.run.RETRY_SECONDS", 0.01)


def refused(step: Step, at: World) -> bool:
    """Whether a step that was tried did nothing, and said so where anybody is told."""
    try:
        step.do(at)
    except ServiceError:
        return True
    return step.quiet


@contextmanager
def tried(step: Step, at: World) -> Iterator[Future[bool]]:
    """A step in a thread of its own, which is over at the end."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(refused, step, at)


@pytest.mark.parametrize("name", STEPS)
def test_each_step_changes_what_a_restart_finds_and_memory_tells_the_same(place, name):
    (memory, disk), (memory_after, disk_after) = place.reference(name)
    assert disk != disk_after
    assert outliving(memory) == outliving(disk)
    assert outliving(memory_after) == outliving(disk_after)


@pytest.mark.parametrize(("name", "number"), WRITES)
def test_a_write_that_breaks_before_it_took_place_leaves_all_as_it_was_and_may_be_tried_again(place, name, number):
    before, after = place.reference(name)
    with place.opened() as at:
        with broken_commit(at.engine.store, number, took=False):
            nothing = refused(STEPS[name], at)
        assert place.seen(at) == (before if nothing else after)
        if nothing:
            STEPS[name].do(at)
            assert place.seen(at) == after


@pytest.mark.parametrize(("name", "number"), WRITES)
def test_a_write_that_took_place_and_says_that_it_broke_has_been_done(place, name, number):
    _, after = place.reference(name)
    with place.opened() as at:
        with broken_commit(at.engine.store, number, took=True):
            STEPS[name].do(at)
        assert place.seen(at) == after


@pytest.mark.parametrize(
    ("name", "took"),
    [*((name, True) for name in STEPS), ("a job", False), ("a job's success", False)],
)
def test_a_write_of_which_nothing_is_known_changes_nothing_in_memory_and_is_the_last_one(place, name, took, caplog):
    before, after = place.reference(name)
    step = STEPS[name]
    with place.opened() as at:
        snapshot(at.engine)  # which leaves all weights in memory
        with broken_commit(at.engine.store, took=took, known=False), tried(step, at) as asked:
            until(lambda: asked.done() or caplog.records)
            at.engine.drain()
        memory, disk = place.seen(at)
        assert memory == before[0]
        assert disk == (after if took else before)[1]
        with pytest.raises(StorageUnavailable, match="restart the service"):
            at.engine.create(**SIZES)
        assert place.seen(at) == (memory, disk)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", STEPS)
def test_while_a_fault_lasts_all_stays_as_it_was_and_afterwards_the_step_is_done(place, name, fault, caplog):
    before, after = place.reference(name)
    step = STEPS[name]
    with place.opened() as at:
        with ExitStack() as threads, FAULTS[fault](at.engine.store):
            asked = threads.enter_context(tried(step, at))
            until(lambda: asked.done() or caplog.records)
            waits = not asked.done()
            nothing = waits or asked.result()
            assert place.seen(at) == (before if nothing else after)
        assert nothing or fault == "a full disk"  # where the pages that are there may do
        assert step.waits or not waits
        asked.result()
        if nothing and not waits:
            step.do(at)
        assert place.seen(at) == after


def test_a_step_that_publishes_lets_go_of_an_old_version_in_the_same_transaction(place):
    for name in ("an adapter", "a rollback", "a rollback with a key"):
        (_, before), (_, after) = place.reference(name)
        numbers = [[version[0].number for version in of["versions"][1]] for of in (before, after)]
        assert numbers == [[0, 1], [1, 2]]


def test_weights_that_nobody_knows_to_be_gone_cannot_be_read(place):
    with place.opened() as at:
        with broken_commit(at.engine.store, took=True, known=False), pytest.raises(StorageUnavailable):
            at.engine.delete(at.ids["spare"])
        with pytest.raises(StorageUnavailable, match="restart the service"):
            at.engine.forward(at.ids["spare"], np.zeros((1, 8), np.float32))


def test_a_full_disk_refuses_what_needs_room(place):
    before, _ = place.reference("a job")
    with place.opened() as at:
        with full_disk(at.engine.store), pytest.raises(InsufficientStorage, match="disk is full"):
            at.engine.create(in_features=256, out_features=256)
        assert place.seen(at) == before


def stored_keys(place: Place) -> set[str]:
    """The keys of the replies that the next start finds."""
    with place.restarted() as fresh:
        return {*fresh.replies._replies}


def test_an_old_reply_goes_with_the_next_one_in_one_transaction(place):
    old = replace(REPLY, at=datetime.now(UTC) - timedelta(hours=KEPT_HOURS + 1))
    with place.opened() as at:
        at.engine.store.write(at.engine.replies.kept("old", old))
        replies = at.engine.replies = Replies(at.engine.store)
        with read_only(at.engine.store), pytest.raises(StorageUnavailable):
            create_with_key(at)
        assert {*replies._replies} == stored_keys(place) == {"key", "old"}
        create_with_key(at)
        assert {*replies._replies} == stored_keys(place) == {"key", "new"}


def test_a_sweep_is_started_though_it_cannot_be_stored_that_an_old_one_goes(place, monkeypatch):
    monkeypatch.setattr("service.engine.sweeps.KEPT", 1)
    with place.opened() as at:
        for writes, there in ((2, 2), (0, 1)):
            with broken_commit(at.engine.store, writes, took=False):
                start_sweep(at)
            memory, disk = place.seen(at)
            assert outliving(memory) == outliving(disk)
            assert len(memory["sweeps"]) == there
