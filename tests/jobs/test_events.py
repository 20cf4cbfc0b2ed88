"""Events follow from the record of a job, and are those that a naive reader would have written down."""

import pytest
from hypothesis import given, settings

from service.jobs import events
from service.jobs.state import State
from tests.jobs.records import histories, job, step, told


def record_of(steps):
    record = job()
    for change in steps:
        record = step(record, change)
    return record


@settings(max_examples=200)
@given(histories())
def test_events_are_numbered_from_one_without_gap_and_say_what_happened(steps):
    record = record_of(steps)
    expected = told(steps, record.epochs)
    assert events.count(record) == len(expected)
    for after in range(len(expected) + 1):
        found = [(event.number, event.kind, event.data) for event in events.since(record, after)]
        assert found == [(number, *line) for number, line in enumerate(expected, start=1) if number > after]


@settings(max_examples=100)
@given(histories())
def test_a_piece_of_the_list_is_that_piece(steps):
    record = record_of(steps)
    whole = events.since(record)
    for after in range(len(whole) + 1):
        for end in range(after, len(whole) + 3):
            assert events.since(record, after, end) == whole[after:end]


@settings(max_examples=100)
@given(histories())
def test_a_number_that_no_event_can_have_starts_the_list_over_and_one_to_come_is_waited_for(steps):
    record = record_of(steps)
    whole = events.since(record)
    most = len(whole) if record.state.terminal else max(len(whole), record.epochs + events.END_EVENTS)
    for after in (-1, -(10**20), most + 1, 10**20):
        assert events.since(record, after) == whole
    for after in range(len(whole) + 1, most + 1):
        assert events.since(record, after) == []


@settings(max_examples=100)
@given(histories())
def test_what_was_told_once_is_told_the_same_for_ever(steps):
    record = job()
    seen = events.since(record)
    for change in steps:
        record = step(record, change)
        assert events.since(record)[: len(seen)] == seen
        seen += events.since(record, len(seen))
    assert seen == events.since(record)


@pytest.mark.parametrize("end", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_the_last_event_of_a_job_that_ended_is_done(end):
    *_, state, done = events.since(record_of([State.RUNNING, [1.0, 0.5], end]))
    assert (state.kind, done.kind) == ("state", "done")
    assert state.data == done.data == {"state": str(end), "reason": "because" if end is State.FAILED else None}


def test_the_events_of_a_long_job_are_cheap_at_its_end():
    record = record_of([State.RUNNING, [0.5] * 10_000])
    assert [event.number for event in events.since(record, 10_000)] == [10_001, 10_002]


def test_an_epoch_has_a_number_of_every_curve():
    curves = {name: [10 * place + 1.0, 10 * place + 2.0] for place, name in enumerate(events.SINGULAR)}
    record = record_of([State.RUNNING]).progressed(curves)
    assert [event.data for event in events.since(record, 2)] == [
        {
            "epoch": epoch,
            "epochs": record.epochs,
            "loss": epoch,
            "validation_loss": 10 + epoch,
            "accuracy": 20 + epoch,
            "validation_accuracy": 30 + epoch,
        }
        for epoch in (1, 2)
    ]
    assert [event.data["validation_loss"] for event in events.since(record, 3)] == [12]
