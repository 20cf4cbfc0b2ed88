"""Entries are served in turn, one of a key at a time, and no more wait than may."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import TemporaryReducedCapacity, TooManyRequests
from service.jobs.queue import Queue
from tests.running import DEADLINE_SECONDS


@dataclass(frozen=True)
class Entry:
    job_id: str
    key: str
    sweep: str = ""
    owner: str = ""

    @property
    def group(self) -> str:
        return self.sweep or self.job_id


def entries(*keys: str) -> list[Entry]:
    return [Entry(f"job_{number}", key) for number, key in enumerate(keys)]


def queue_of(*some: Entry, max_entries: int = 100) -> "Queue[Entry]":
    queue: Queue[Entry] = Queue(max_entries)
    for entry in some:
        queue.put(entry)
    return queue


def one(queue: "Queue[Entry]", timeout: float = 0) -> Entry | None:
    """The next entry by itself."""
    return next(iter(queue.take(timeout)), None)


def test_what_joins_the_first_is_taken_with_it():
    a, b, c, d = entries(*"abcd")
    queue = queue_of(a, b, c, d)
    asked = []

    def joins(taken, entry):
        asked.append((list(taken), entry))
        return entry is not c

    assert queue.take(0, joins) == [a, b, d]
    assert asked == [([a], b), ([a, b], c), ([a, b], d)]
    assert queue.take(0, joins) == [c]


def test_none_overtakes_another_one_of_its_key():
    first, other, later, free = entries(*"abbc")
    queue = queue_of(first, other, later, free)
    assert queue.take(0, lambda taken, entry: entry is not other) == [first, free]
    assert queue.take(0, lambda taken, entry: True) == [other]
    assert queue.take(0, lambda taken, entry: True) == []
    queue.done([other])
    assert one(queue) is later


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12), st.randoms(use_true_random=False))
def test_those_of_a_key_leave_in_the_order_in_which_they_came(some, choice):
    likeness = {f"job_{number}": alike for number, (_, alike) in enumerate(some)}
    queue = queue_of(*entries(*(key for key, _ in some)))
    left, held = [], []
    while len(left) < len(some):
        taken = queue.take(0, lambda taken, entry: likeness[entry.job_id] == likeness[taken[0].job_id])
        left += taken
        held += taken
        assert len({entry.key for entry in held}) == len(held)
        done = [entry for entry in held if choice.random() < 0.5 or not taken]
        held = [entry for entry in held if entry not in done]
        queue.done(done)
    for key in "abc":
        numbers = [int(entry.job_id[4:]) for entry in left if entry.key == key]
        assert numbers == sorted(numbers)


def test_those_of_one_group_take_one_place_until_the_last_has_left():
    queue = queue_of(*(Entry(f"job_{n}", f"mdl_{n}", "swp_1") for n in range(3)), max_entries=2)
    queue.must_have_room()
    queue.put(Entry("job_4", "mdl_4"))
    with pytest.raises(TemporaryReducedCapacity):
        queue.must_have_room()
    taken = queue.take(0, lambda taken, entry: entry.group == "swp_1")
    assert [entry.group for entry in taken] == ["swp_1"] * 3
    queue.must_have_room()
    queue.put_back(taken)
    with pytest.raises(TemporaryReducedCapacity):
        queue.must_have_room()
    for entry in taken[:2]:
        queue.drop(entry.job_id)
        with pytest.raises(TemporaryReducedCapacity):
            queue.must_have_room()
    queue.drop(taken[2].job_id)
    queue.must_have_room()


def test_of_one_key_only_one_is_taken_at_a_time():
    first, second, other = entries(*"aab")
    queue = queue_of(first, second, other)
    assert queue.take(0, lambda taken, entry: True) == [first, other]
    assert queue.take(0, lambda taken, entry: True) == []
    queue.done([first, other])
    assert queue.take(0, lambda taken, entry: True) == [second]


def test_owners_take_turns_however_much_each_has_waiting():
    many = [Entry(f"job_{n}", f"a{n}", owner="a") for n in range(4)]
    few = [Entry(f"job_{n}", f"b{n}", owner="b") for n in (4, 5)]
    nobodys = Entry("job_6", "c")
    queue = queue_of(*many, *few, nobodys)
    assert [one(queue) for _ in range(7)] == [many[0], few[0], nobodys, many[1], few[1], many[2], many[3]]


def test_an_owner_whose_turn_it_is_overtakes_nobody_on_the_same_key():
    first, other, later = Entry("job_0", "m", owner="a"), Entry("job_1", "n", owner="a"), Entry("job_2", "m", owner="b")
    queue = queue_of(first, other, later)
    assert [one(queue), one(queue), one(queue)] == [first, other, None]
    queue.done([first])
    assert one(queue) is later


def test_what_joins_may_be_of_another_owner():
    mine, yours, theirs = (Entry(f"job_{n}", str(n), owner=owner) for n, owner in enumerate("abc"))
    queue = queue_of(mine, yours, theirs)
    assert queue.take(0, lambda taken, entry: entry is theirs) == [mine, theirs]
    assert one(queue) is yours


def test_an_owner_has_a_share_of_the_queue_in_which_a_group_is_one():
    queue: Queue[Entry] = Queue(5, 2)
    for number, sweep in enumerate(["", "swp_1", "swp_1"]):
        queue.put(Entry(f"job_{number}", str(number), sweep, "a"))
    with pytest.raises(TooManyRequests, match="2 jobs of this key"):
        queue.must_have_room("a")
    queue.must_have_room("b")
    queue.must_have_room()
    queue.drop("job_0")
    queue.must_have_room("a")


def test_whoever_asks_for_room_may_do_so_while_others_come_and_go():
    queue: Queue[Entry] = Queue(10_000)
    some = [Entry(f"job_{number}", f"key_{number}", owner="ab"[number % 2]) for number in range(2_000)]
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for entry in some:
                queue.put(entry)
            for entry in some:
                queue.drop(entry.job_id)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(come_and_go)
        until = time.monotonic() + 1.0
        try:
            while time.monotonic() < until:
                queue.must_have_room("a")
        finally:
            over.set()
        coming.result()


def test_all_that_is_put_back_is_next_again_in_its_order():
    a, b, c = entries(*"abc")
    queue = queue_of(a, b)
    taken = queue.take(0, lambda taken, entry: True)
    queue.put(c)
    queue.put_back(taken)
    assert queue.take(0, lambda taken, entry: True) == [a, b, c]


def test_entries_of_different_keys_come_out_as_they_went_in():
    some = entries(*"abcde")
    queue = queue_of(*some)
    assert [one(queue) for _ in range(6)] == [*some, None]


def test_an_entry_waits_for_the_one_of_its_key_and_others_pass_it():
    first, second, other = entries("a", "a", "b")
    queue = queue_of(first, second, other)
    assert [one(queue), one(queue), one(queue)] == [first, other, None]
    queue.done([other])
    assert one(queue) is None
    queue.done([first])
    assert one(queue) is second


PUTS = st.tuples(st.just("put"), st.sampled_from("abc"))
OTHERS = st.tuples(st.sampled_from(["take", "done", "drop"]), st.integers(0, 5))


@settings(max_examples=200)
@given(st.lists(PUTS | OTHERS, max_size=50), st.integers(1, 6))
def test_the_queue_does_what_a_plain_list_would(operations, most):
    queue: Queue[Entry] = Queue(most)
    waiting: list[Entry] = []
    running: list[Entry] = []
    for number, (what, which) in enumerate(operations):
        if what == "put":
            entry = Entry(f"job_{number}", which)
            if len(waiting) == most:
                with pytest.raises(TemporaryReducedCapacity):
                    queue.must_have_room()
            else:
                queue.must_have_room()
                queue.put(entry)
                waiting.append(entry)
        elif what == "take":
            busy = {entry.key for entry in running}
            expected = next((entry for entry in waiting if entry.key not in busy), None)
            assert one(queue) is expected
            if expected:
                waiting.remove(expected)
                running.append(expected)
        elif what == "done" and running:
            queue.done([running.pop(which % len(running))])
        elif what == "drop":
            expected = waiting.pop(which % len(waiting)) if waiting else Entry("none", "a")
            assert queue.drop(expected.job_id) is (expected if expected.job_id != "none" else None)
        assert len(queue) == len(waiting)


def test_a_full_queue_says_so():
    a, b = entries(*"ab")
    queue = queue_of(a, max_entries=2)
    queue.must_have_room()
    queue.put(b)
    with pytest.raises(TemporaryReducedCapacity, match=r"2 jobs are waiting, .* \(LORA_QUEUE_MAX\)") as full:
        queue.must_have_room()
    assert full.value.facts == {"reason": "queue-full", "limit": 2}
    assert full.value.retryable
    assert one(queue) is a
    queue.must_have_room()


def test_what_is_put_back_finds_its_place_though_another_has_taken_it():
    a, b = entries(*"ab")
    queue = queue_of(a, max_entries=1)
    assert one(queue) is a
    queue.put(b)
    queue.put_back([a])
    assert (one(queue), one(queue)) == (a, b)


def test_what_was_taken_or_dropped_cannot_be_dropped():
    a, b = entries(*"ab")
    queue = queue_of(a, b)
    assert one(queue) is a
    assert [queue.drop(a.job_id), queue.drop(b.job_id), queue.drop(b.job_id)] == [None, b, None]
    assert one(queue) is None


def test_dropping_an_entry_lets_the_next_of_its_key_come_first():
    first, second, third = entries("a", "a", "a")
    queue = queue_of(first, second, third)
    one(queue)
    queue.drop(second.job_id)
    queue.done([first])
    assert one(queue) is third


@pytest.mark.parametrize("round_", range(20))
def test_whoever_waits_is_woken_by_an_entry_and_by_a_key_that_becomes_free(round_):
    first, second = entries("a", "a")
    queue = queue_of()

    def take(about_to: threading.Event) -> Entry | None:
        about_to.set()
        return one(queue, 2 * DEADLINE_SECONDS)

    with ThreadPoolExecutor(1) as threads:
        for entry, wake in [(first, lambda: queue.put(first)), (second, lambda: queue.done([first]))]:
            about_to = threading.Event()
            taken = threads.submit(take, about_to)
            about_to.wait()
            time.sleep(0)  # let it come to wait, which it does in most rounds
            wake()
            assert taken.result(DEADLINE_SECONDS) is entry
            if entry is first:
                queue.put(second)


def test_a_wait_ends_when_its_time_is_up():
    started = time.monotonic()
    assert queue_of().take(0.05) == []
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("keys", [1, 3, 20])
def test_many_threads_take_everything_once_in_turn_and_one_of_a_key_at_a_time(keys):
    some = [Entry(f"job_{number:03}", f"key_{number % keys}") for number in range(200)]
    queue: Queue[Entry] = Queue(len(some))
    lock, busy, taken = threading.Lock(), set(), []

    def work(_):
        while len(taken) < len(some):
            entry = one(queue, 0.01)
            if entry is None:
                continue
            with lock:
                assert entry.key not in busy
                busy.add(entry.key)
                taken.append(entry)
            time.sleep(0)  # let another thread in
            with lock:
                busy.remove(entry.key)
            queue.done([entry])

    with ThreadPoolExecutor(7) as threads:
        working = [threads.submit(work, n) for n in range(6)]
        for entry in some:
            queue.put(entry)
        for done in working:
            done.result(DEADLINE_SECONDS)
    assert sorted(entry.job_id for entry in taken) == [entry.job_id for entry in some]
    for key in {entry.key for entry in some}:
        assert [entry for entry in taken if entry.key == key] == [entry for entry in some if entry.key == key]
    assert len(queue) == 0


def test_what_is_put_back_is_the_next_again():
    first, second = entries("a", "b")
    queue = queue_of(first, second)
    taken = one(queue)
    queue.put_back([taken])
    assert len(queue) == 2
    assert [one(queue), one(queue)] == [first, second]


def test_a_closed_queue_gives_out_nothing_and_lets_whoever_asks_wait():
    queue = queue_of(*entries("a"))
    queue.close()
    began = time.monotonic()
    assert queue.take(0.2) == []
    assert time.monotonic() - began >= 0.2
    assert len(queue) == 1


def test_what_runs_elsewhere_holds_its_key_until_it_is_dropped():
    first, later, other = entries(*"aab")
    queue = queue_of(first, later, other)
    assert queue.sent("job_0") is first
    assert queue.sent("job_0") is None
    assert queue.away == [first]
    assert [one(queue), one(queue)] == [other, None]
    assert queue.drop("job_0") is first
    assert one(queue) is later


def test_what_was_taken_and_yielded_to_another_waits_again_before_all_others_when_it_comes_back():
    first, second, other = entries(*"abc")
    queue = queue_of(first, second, other)
    taken = queue.take(0, lambda taken, entry: True)
    queue.yielded([first, second])
    queue.done([other])
    assert taken == [first, second, other]
    assert queue.away == [first, second]
    assert queue.until_idle(0)
    queue.put(other)
    for entry in (second, first):
        assert queue.drop(entry.job_id) is entry
        queue.put(entry, first=True)
    assert [one(queue) for _ in range(4)] == [first, second, other, None]
