"""A job is a value: what comes later makes a new one, and leaves every older one as it was."""

import itertools
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.jobs.state import MOVES, State
from tests.jobs.records import ENDS, EPOCH, at, histories, job, step


def test_a_new_job_waits_and_has_done_nothing():
    new = job(epochs=7)
    assert (new.state, new.epoch, list(new.losses), new.epochs) == (State.QUEUED, 0, [], 7)
    assert (new.started_at, new.finished_at, new.duration_seconds, new.model_version, new.reason) == (None,) * 5


@settings(max_examples=200)
@given(histories())
def test_older_values_stay_as_they_were(steps):
    values, expected = [job()], [(State.QUEUED, 0, [])]
    losses: list[float] = []
    for change in steps:
        values.append(step(values[-1], change))
        losses = [*losses, *([] if isinstance(change, State) else change)]
        state = change if isinstance(change, State) else values[-2].state
        expected.append((state, len(losses), losses))
    assert [(value.state, value.epoch, list(value.losses)) for value in values] == expected


@pytest.mark.parametrize(("state", "to"), list(itertools.product(State, State)))
def test_a_job_makes_the_moves_of_the_table_and_no_others(state, to):
    path = {State.QUEUED: [], State.RUNNING: [State.RUNNING]}.get(state, [State.RUNNING, state])
    record = job()
    for change in path:
        record = step(record, change)
    assert record.state is state
    if to in MOVES[state]:
        assert step(record, to).state is to
    else:
        with pytest.raises(ValueError, match=f"from {state} to {to}"):
            step(record, to)


@settings(max_examples=100)
@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(-1e6, 1e6), st.sampled_from(ENDS))
def test_a_duration_is_measured_on_the_clock_that_never_jumps(started, ran, jump, end):
    record = job().moved(State.RUNNING, at(started)).moved(end, at(started + ran, wall=started + jump))
    assert record.duration_seconds == round(started + ran - started, 6)
    assert record.duration_seconds >= 0
    assert (record.finished_at - record.started_at).total_seconds() == pytest.approx(jump, abs=1e-5)


@pytest.mark.parametrize("end", [State.CANCELLED, State.FAILED])
def test_a_job_that_never_ran_has_an_end_but_no_duration(end):
    record = job().moved(end, at(5))
    assert (record.created_at, record.started_at, record.finished_at) == (EPOCH, None, at(5).wall)
    assert record.duration_seconds is None


def test_what_becomes_known_by_a_move_is_kept():
    running = job().moved(State.RUNNING, at(1))
    done = running.moved(State.SUCCEEDED, at(3), model_version=4, metrics={"final_loss": 0.5})
    failed = running.moved(State.FAILED, at(2), "diverged", detail="a loss is not finite")
    assert (done.model_version, done.metrics, done.reason) == (4, {"final_loss": 0.5}, None)
    assert (failed.reason, failed.detail, failed.duration_seconds) == ("diverged", "a loss is not finite", 1)
    assert [(change.state, change.epoch, change.reason) for change in failed.history] == [
        (State.QUEUED, 0, None),
        (State.RUNNING, 0, None),
        (State.FAILED, 0, "diverged"),
    ]


def test_a_job_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        job().epoch = 3


def test_losses_that_were_read_do_not_grow():
    record = job().moved(State.RUNNING, at(0)).progressed({"losses": [1.0]})
    read = record.losses
    record.progressed({"losses": [0.5]})
    assert list(read) == [1.0]


def test_every_curve_has_a_number_for_each_finished_epoch():
    running = job().moved(State.RUNNING, at(0), together=3)
    early = running.progressed({"losses": [3.0, 2.0], "validation_losses": [4.0, 5.0]})
    late = early.progressed({"losses": [1.0], "validation_losses": [6.0]})
    assert (late.together, late.epoch, late.curves) == (3, 3, ("losses", "validation_losses"))
    assert list(late.losses) == list(late.curve("losses")) == [3.0, 2.0, 1.0]
    assert list(late.curve("validation_losses")) == [4.0, 5.0, 6.0]
    assert list(early.curve("validation_losses")) == [4.0, 5.0]
    assert [list(late.curve("losses", *piece)) for piece in [(1,), (0, 2), (1, 2), (3,), (0, 9)]] == [
        [2.0, 1.0],
        [3.0, 2.0],
        [2.0],
        [],
        [3.0, 2.0, 1.0],
    ]
    assert list(late.curve("accuracies")) == []
