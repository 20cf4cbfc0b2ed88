"""Forwards that wait for one base share a pass; each is answered as if it had come alone."""

import gc
import threading
import weakref
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import Draining, TemporaryReducedCapacity
from service.lora.grouped import Maps
from service.serving.batcher import Batcher
from service.serving.window import Window
from tests.running import DEADLINE_SECONDS, until

IN, OUT = 6, 5
BASE = np.random.default_rng(0).standard_normal((IN, OUT), np.float32)


def maps(seed: int, rank: int = 2) -> Maps:
    draw = np.random.default_rng(seed)
    down, up = draw.standard_normal((IN, rank), np.float32), draw.standard_normal((rank, OUT), np.float32)
    return Maps(BASE, draw.standard_normal(OUT, np.float32), down, up, 0.5)


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, IN), np.float32)


class Gate(Maps):
    """Maps whose product waits until it may go on, and which may break."""

    def __init__(self, breaks: bool = False) -> None:
        like = maps(99)
        for name in ("weight", "bias", "down", "up", "scaling", "stretch"):
            object.__setattr__(self, name, getattr(like, name))
        object.__setattr__(self, "entered", threading.Event())
        object.__setattr__(self, "open", threading.Event())
        object.__setattr__(self, "breaks", breaks)

    def adapt(self, x, y):
        self.entered.set()
        assert self.open.wait(DEADLINE_SECONDS)
        if self.breaks:
            raise MemoryError("no more")
        super().adapt(x, y)


@pytest.fixture
def batcher():
    made = Batcher(Window(wait_seconds=0.0))
    yield made
    made.close()


def held(batcher: Batcher) -> tuple[Gate, "threading.Event"]:
    """Keep the thread busy until the gate is opened."""
    gate = Gate()
    batcher.submit("gate", gate, rows(1))
    assert gate.entered.wait(DEADLINE_SECONDS)
    return gate, gate.open


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=12),
    st.integers(1, 8),
)
def test_many_at_once_are_answered_as_each_alone(some, max_rows):
    batcher = Batcher(Window(max_rows=max_rows, wait_seconds=0.0))
    layers = {seed: maps(seed, rank=1 + seed) for seed in range(4)}
    _, opened = held(batcher)
    waiting = [
        (batcher.submit(base, layers[seed], rows(n, at)), layers[seed](rows(n, at)))
        for at, (base, seed, n) in enumerate(some)
    ]
    opened.set()
    for future, expected in waiting:
        np.testing.assert_allclose(future.result(DEADLINE_SECONDS), expected, rtol=1e-5, atol=1e-5)
    batcher.close()
    assert batcher.requests == 1 + len(some)


def test_those_of_one_base_share_a_pass_and_those_of_another_do_not(batcher):
    _, opened = held(batcher)
    waiting = [batcher.submit(base, maps(seed), rows(2)) for seed in range(3) for base in "ab"]
    opened.set()
    wait(waiting, DEADLINE_SECONDS)
    assert (batcher.batches, batcher.requests) == (3, 7)


def test_a_batch_has_no_more_rows_than_it_may_and_one_request_may_have_more(batcher):
    batcher.window = Window(max_rows=4, wait_seconds=0.0)
    _, opened = held(batcher)
    waiting = [batcher.submit("a", maps(0), rows(n)) for n in (3, 1, 2, 9, 1)]
    opened.set()
    wait(waiting, DEADLINE_SECONDS)
    assert batcher.batches == 1 + 5  # 3 + 1, 2, 4 of the 9, 4 of the 9, its last and 1
    assert batcher.requests == 1 + 5
    assert [len(future.result()) for future in waiting] == [3, 1, 2, 9, 1]


def test_one_that_breaks_leaves_its_neighbours_alone(batcher):
    bad = Gate(breaks=True)
    bad.open.set()
    _, opened = held(batcher)
    good, broken, other = (batcher.submit("a", each, rows(2)) for each in (maps(1), bad, maps(2)))
    opened.set()
    np.testing.assert_allclose(good.result(DEADLINE_SECONDS), maps(1)(rows(2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.result(DEADLINE_SECONDS), maps(2)(rows(2)), rtol=1e-5, atol=1e-6)
    with pytest.raises(MemoryError):
        broken.result(DEADLINE_SECONDS)


def test_a_caller_that_left_is_passed_over(batcher):
    _, opened = held(batcher)
    gone, there = batcher.submit("a", maps(0), rows(1)), batcher.submit("a", maps(0), rows(1))
    assert gone.cancel()
    opened.set()
    there.result(DEADLINE_SECONDS)
    assert batcher.requests == 2
    with pytest.raises(CancelledError):
        gone.result()


def test_nothing_of_a_caller_that_left_is_kept(batcher):
    _, opened = held(batcher)
    x = rows(1)
    kept = weakref.ref(x)
    gone = batcher.submit("a", maps(0), x)
    gone.cancel()
    del x, gone
    gc.collect()
    assert kept() is None
    opened.set()


def test_a_large_request_lets_those_of_other_bases_pass(batcher):
    batcher.window = Window(max_rows=4, wait_seconds=0.0)
    _, opened = held(batcher)
    ends: list[str] = []
    large, small = batcher.submit("a", maps(0), rows(40)), batcher.submit("b", maps(1), rows(1))
    for name, future in (("large", large), ("small", small)):
        future.add_done_callback(lambda _, name=name: ends.append(name))
    opened.set()
    np.testing.assert_allclose(large.result(DEADLINE_SECONDS), maps(0)(rows(40)), rtol=1e-5, atol=1e-6)
    assert ends == ["small", "large"]


def test_a_thread_that_cannot_be_started_is_started_by_the_next(batcher, monkeypatch):
    def refuses(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuses)
        with pytest.raises(RuntimeError):
            batcher.submit("a", maps(0), rows(1))
    assert len(batcher.submit("a", maps(0), rows(1)).result(DEADLINE_SECONDS)) == 1


def test_what_could_not_begin_in_time_is_refused():
    now = [100.0]
    batcher = Batcher(Window(wait_seconds=0.0), clock=lambda: now[0])
    _, opened = held(batcher)
    late, in_time = (batcher.submit("a", maps(0), rows(1), until) for until in (101.0, 103.0))
    now[0] = 102.0
    opened.set()
    in_time.result(DEADLINE_SECONDS)
    with pytest.raises(TemporaryReducedCapacity, match="LORA_FORWARD_WAIT_MS") as refused:
        late.result(DEADLINE_SECONDS)
    assert refused.value.retryable
    batcher.close()


def test_who_comes_when_another_has_waited_half_as_long_as_one_may_is_refused_at_once():
    now = [100.0]
    batcher = Batcher(Window(wait_seconds=0.0), clock=lambda: now[0])
    _, opened = held(batcher)
    first = batcher.submit("a", maps(0), rows(1), until=102.0)
    now[0] = 101.0
    in_time = batcher.submit("a", maps(0), rows(1), until=103.0)
    now[0] = 101.1
    assert batcher.crowded("a", 2.0)
    late = batcher.submit("a", maps(0), rows(1), until=103.1)
    assert isinstance(late.exception(0), TemporaryReducedCapacity)
    patient, other = (batcher.submit(base, maps(0), rows(1), until) for base, until in (("a", 110.0), ("b", 103.1)))
    opened.set()
    for answered in (first, in_time, patient, other):
        answered.result(DEADLINE_SECONDS)
    assert not batcher.crowded("a", 0)
    batcher.close()


def test_after_a_shared_pass_the_next_gathers_until_as_many_have_come():
    batcher = Batcher(Window(wait_seconds=DEADLINE_SECONDS))
    _, opened = held(batcher)
    first = [batcher.submit("a", maps(0), rows(1)) for _ in range(3)]
    opened.set()
    wait(first, DEADLINE_SECONDS)
    until(lambda: batcher.requests == 4)
    second = [batcher.submit("a", maps(0), rows(1)) for _ in range(2)]
    assert not any(future.done() for future in second)
    second.append(batcher.submit("a", maps(0), rows(1)))
    wait(second, DEADLINE_SECONDS)
    assert (batcher.batches, batcher.requests) == (3, 7)
    batcher.close()


def test_what_overflows_is_told_in_the_outputs_and_nowhere_else(batcher, recwarn):
    y = batcher.submit("a", maps(0), np.full((1, IN), 3e38, np.float32)).result(DEADLINE_SECONDS)
    assert not np.isfinite(y).all()
    assert not recwarn


def test_closing_answers_whoever_still_waits():
    batcher = Batcher(Window(wait_seconds=0.0))
    _, opened = held(batcher)
    waiting, gone = (batcher.submit("a", maps(0), rows(1)) for _ in range(2))
    gone.cancel()
    with ThreadPoolExecutor(1) as thread:
        closing = thread.submit(batcher.close)
        opened.set()
        closing.result(DEADLINE_SECONDS)
    # The one that waits was taken before the end was seen, or refused.
    assert waiting.exception(DEADLINE_SECONDS) is None or isinstance(waiting.exception(), Draining)
    with pytest.raises(Draining):
        batcher.submit("a", maps(0), rows(1)).result(DEADLINE_SECONDS)
    assert batcher._thread is not None
    assert not batcher._thread.is_alive()
