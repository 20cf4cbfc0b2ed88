"""The ledger remembers every job that is under way and the newest that ended, and tells whoever watches."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import JobActive, JobNotFound
from service.jobs import events
from service.jobs.ledger import FEED_EVENTS, Ledger
from service.jobs.state import State
from tests.jobs.records import ENDS, at, job, step

MODELS = ["mdl_1", "mdl_2"]


def ledger_with(*ids: str, keep: int = 10) -> Ledger:
    ledger = Ledger(keep)
    for job_id in ids:
        ledger.add(job(job_id))
    return ledger


def move(ledger: Ledger, job_id: str, *changes: State | list[float]):
    """The job after these steps, each of them a swap."""
    for change in changes:
        record = ledger.swap(job_id, lambda record, change=change: step(record, change))
    return record


def test_what_ended_here_is_counted_by_how_and_nothing_that_ended_elsewhere_or_before():
    ledger = ledger_with("job_1", "job_2", "job_3", keep=1)
    for job_id, end in (("job_1", State.SUCCEEDED), ("job_2", State.SUCCEEDED), ("job_3", State.FAILED)):
        over = move(ledger, job_id, State.RUNNING, end, State.CANCELLED)
    assert ledger.ended == {State.SUCCEEDED: 2, State.FAILED: 1}
    another = Ledger(10)
    another.restore([over])
    another.learn(over)
    assert another.ended == {}


VERBS = st.sampled_from(["add", "add", "run", "progress", "remove", *ENDS])
OPERATIONS = st.lists(st.tuples(VERBS, st.integers(0, 9)), min_size=15, max_size=40)


@settings(max_examples=150)
@given(OPERATIONS, st.integers(1, 3))
def test_active_jobs_stay_and_of_the_others_the_last_to_end(operations, keep):
    ledger, ended, states = Ledger(keep), [], {}
    fed = []
    for number, (what, which) in enumerate(operations):
        ids = list(states)
        if what == "add" or not ids:
            record = ledger.add(job(f"job_{number}", MODELS[which % 2]))
            states[record.id] = State.QUEUED
            fed.append((record.id, 1))
            continue
        job_id = ids[which % len(ids)]
        before, record = states[job_id], ledger.get(job_id)
        if what == "remove" and before.terminal:
            ledger.remove(job_id)
            ended.remove(job_id)
            del states[job_id]
        elif what == "run" and before is State.QUEUED:
            states[job_id] = move(ledger, job_id, State.RUNNING).state
        elif what == "progress" and before is State.RUNNING:
            move(ledger, job_id, [1.0, 0.5])
        elif what in ENDS and (before is State.RUNNING or (before is State.QUEUED and what is not State.SUCCEEDED)):
            states[job_id] = move(ledger, job_id, what).state
            ended.append(job_id)
            for dropped in ended[:-keep]:
                ended.remove(dropped)
                del states[dropped]
        if job_id in states:
            fed += [(job_id, n) for n in range(events.count(record) + 1, events.count(ledger.get(job_id)) + 1)]
        assert [(record.id, record.state) for record in ledger.all()] == list(states.items())
        assert len(ledger) == len(states)
    for model_id in MODELS:
        active = [record for record in ledger.all() if record.model_id == model_id and not record.state.terminal]
        assert ledger.active(model_id) == active
    found = [(record.id, event.number) for _, record, event in ledger.feed(0)]
    assert found == [(job_id, n) for job_id, n in fed if job_id in states]


@pytest.mark.parametrize("end", ENDS)
def test_nothing_changes_a_job_that_has_ended(end):
    ledger = ledger_with("job_1")
    ended = move(ledger, "job_1", State.RUNNING, [1.0], end)
    rung = []
    ledger.watch(lambda: rung.append(1), "job_1")
    place = ledger.place
    for change in (*State, [0.5]):
        assert move(ledger, "job_1", change) is ended
    assert ledger.get("job_1") is ended
    assert (rung, ledger.place) == ([], place)


def test_a_change_that_fails_leaves_everything_as_it_was():
    ledger = ledger_with("job_1")
    before, place = ledger.get("job_1"), ledger.place
    with pytest.raises(ValueError, match="from queued to succeeded"):
        move(ledger, "job_1", State.SUCCEEDED)
    assert (ledger.get("job_1"), ledger.place) == (before, place)


def test_an_unknown_job_is_not_found():
    ledger = ledger_with()
    for ask in (ledger.get, ledger.remove, lambda job_id: move(ledger, job_id, State.RUNNING)):
        with pytest.raises(JobNotFound, match="there is no job job_9"):
            ask("job_9")


@pytest.mark.parametrize("changes", [[], [State.RUNNING], [State.RUNNING, [1.0]]])
def test_a_job_under_way_is_not_forgotten(changes):
    ledger = ledger_with("job_1")
    before = move(ledger, "job_1", *changes) if changes else ledger.get("job_1")
    with pytest.raises(JobActive, match=f"job job_1 is {before.state}; cancel it first"):
        ledger.remove("job_1")
    assert ledger.get("job_1") is before
    move(ledger, "job_1", State.CANCELLED)
    ledger.remove("job_1")
    assert len(ledger) == 0


def test_watchers_hear_of_the_jobs_they_watch():
    ledger = ledger_with("job_1", "job_2")
    rung = {"one": 0, "two": 0, "any": 0}

    def bell(name):
        return lambda: rung.update({name: rung[name] + 1})

    stops = [ledger.watch(bell("one"), "job_1"), ledger.watch(bell("two"), "job_2"), ledger.watch(bell("any"))]
    move(ledger, "job_1", State.RUNNING, [1.0])
    assert rung == {"one": 2, "two": 0, "any": 2}
    ledger.add(job("job_3"))
    assert rung == {"one": 2, "two": 0, "any": 3}
    ledger.ring()
    assert rung == {"one": 3, "two": 1, "any": 4}
    for stop in stops:
        stop()
    move(ledger, "job_1", [1.0])
    ledger.ring()
    assert rung == {"one": 3, "two": 1, "any": 4}


def test_a_watcher_sees_the_change_it_is_told_of():
    ledger = ledger_with("job_1")
    seen = []
    ledger.watch(lambda: seen.append((ledger.get("job_1").state, ledger.place)), "job_1")
    move(ledger, "job_1", State.RUNNING, State.SUCCEEDED)
    assert seen == [(State.RUNNING, 2), (State.SUCCEEDED, 4)]


def test_a_watcher_may_stop_while_it_is_told():
    ledger = ledger_with("job_1")
    rung = []
    stop = ledger.watch(lambda: (rung.append(1), stop()))
    move(ledger, "job_1", State.RUNNING, [1.0])
    assert rung == [1]


def test_the_feed_has_all_jobs_in_the_order_in_which_things_happened():
    ledger = ledger_with("job_1", "job_2")
    move(ledger, "job_1", State.RUNNING)
    move(ledger, "job_2", State.RUNNING)
    move(ledger, "job_1", [3.0, 2.0], State.SUCCEEDED)
    told = [(place, record.id, event.number, event.kind) for place, record, event in ledger.feed(0)]
    expected = [
        (1, "job_1", 1, "state"),
        (2, "job_2", 1, "state"),
        (3, "job_1", 2, "state"),
        (4, "job_2", 2, "state"),
        (5, "job_1", 3, "epoch"),
        (6, "job_1", 4, "epoch"),
        (7, "job_1", 5, "state"),
        (8, "job_1", 6, "done"),
    ]
    assert told == expected
    assert ledger.place == 8
    for after in range(10):
        assert [place for place, *_ in ledger.feed(after)] == [line[0] for line in expected if line[0] > after]


def test_the_feed_of_a_forgotten_job_is_forgotten():
    ledger = ledger_with("job_1", "job_2")
    move(ledger, "job_1", State.CANCELLED)
    ledger.remove("job_1")
    assert [(place, record.id) for place, record, _ in ledger.feed(0)] == [(2, "job_2")]


def test_the_feed_leaves_out_what_a_job_has_lost_and_tells_it_when_it_has_it_again():
    ledger = ledger_with("job_1")
    record = move(ledger, "job_1", State.RUNNING)
    move(ledger, "job_1", [3.0, 2.0])
    ledger.swap("job_1", lambda _: record)
    assert [(place, event.number) for place, _, event in ledger.feed(0)] == [(1, 1), (2, 2)]
    move(ledger, "job_1", [3.0, 2.0])
    assert [event.number for _, _, event in ledger.feed(ledger.place - 1)] == [4]


def test_jobs_that_are_restored_are_all_there_until_the_next_one_ends():
    forgotten: list[str] = []
    ledger = Ledger(1, forgotten.extend)
    ledger.restore([step(job(f"job_{number}"), State.CANCELLED, number) for number in (3, 1, 2)])
    assert (len(ledger), forgotten) == (3, [])
    ledger.add(job("job_4"))
    move(ledger, "job_4", State.CANCELLED)
    assert ([record.id for record in ledger.all()], forgotten) == (["job_4"], ["job_1", "job_2", "job_3"])


def test_the_feed_reaches_back_so_far_and_no_further():
    ledger = ledger_with("job_1")
    move(ledger, "job_1", State.RUNNING)
    ledger.swap("job_1", lambda record: record.progressed({"losses": [0.5] * FEED_EVENTS}))
    last = ledger.place
    assert last == FEED_EVENTS + 2
    place, _, event = next(ledger.feed(0))
    assert (place, event.data["epoch"]) == (3, 1)
    assert [event.number for _, _, event in ledger.feed(last - 2)] == [last - 1, last]


def test_the_feed_is_read_in_one_pass():
    ledger = ledger_with("job_1")
    move(ledger, "job_1", State.RUNNING, [0.5] * 5_000)
    started = time.thread_time()
    assert sum(1 for _ in ledger.feed(0)) == 5_002
    assert time.thread_time() - started < 2


def test_threads_that_change_jobs_leave_a_feed_without_gaps():
    ids = [f"job_{n}" for n in range(8)]
    ledger = ledger_with(*ids, keep=100)
    start = threading.Barrier(len(ids))

    def live(job_id):
        start.wait()
        move(ledger, job_id, State.RUNNING, *([1.0] for _ in range(50)), State.SUCCEEDED)

    with ThreadPoolExecutor(len(ids)) as threads:
        list(threads.map(live, ids))
    told = [(place, record.id, event.number) for place, record, event in ledger.feed(0)]
    assert [place for place, *_ in told] == list(range(1, 8 * 54 + 1))
    for job_id in ids:
        assert [number for _, of, number in told if of == job_id] == list(range(1, 55))


def test_only_one_of_many_ends_counts():
    for _ in range(30):
        ledger = ledger_with("job_1")
        move(ledger, "job_1", State.RUNNING)
        start = threading.Barrier(3)

        def end(state, ledger=ledger, start=start):
            start.wait()
            return ledger.swap("job_1", lambda record: record.moved(state, at(1))).state

        with ThreadPoolExecutor(3) as threads:
            assert len(set(threads.map(end, ENDS))) == 1
        assert [change.state.terminal for change in ledger.get("job_1").history] == [False, False, True]


def test_to_stop_watching_twice_is_as_good_as_once():
    ledger = ledger_with("job_1")
    stop = ledger.watch(lambda: None, "job_1")
    stop()
    stop()


def test_nobody_who_reads_waits_for_a_change_that_waits_for_a_disk():
    ledger = ledger_with("job_1", "job_2")
    begun, over, rung = threading.Event(), threading.Event(), threading.Event()

    def change(record):
        begun.set()
        assert over.wait(30)
        return step(record, State.RUNNING)

    with ThreadPoolExecutor(2) as threads:
        changed = threads.submit(ledger.swap, "job_1", change)
        assert begun.wait(30)
        try:
            stop = threads.submit(ledger.watch, rung.set).result(10)
            assert [each.id for _, each, _ in threads.submit(lambda: list(ledger.feed(0))).result(10)] == [
                "job_1",
                "job_2",
            ]
            assert ledger.get("job_1").state is State.QUEUED
        finally:
            over.set()
        assert changed.result().state is State.RUNNING
        assert rung.is_set()
        stop()
