"""The budget counts bytes before they are taken, and never beyond its maximum."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import CapacityExhausted
from service.models.budget import Budget


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=30))
def test_what_is_taken_is_counted_and_what_does_not_fit_is_not(steps):
    budget, held = Budget(100), []
    for taking, size in steps:
        if taking and sum(held) + size > 100:
            with pytest.raises(CapacityExhausted):
                budget.take(size)
        elif taking:
            budget.take(size)
            held.append(size)
        elif held:
            budget.give(held.pop())
        assert budget.used == sum(held) <= 100


def test_the_last_byte_may_be_taken_and_no_more():
    budget = Budget(2**40)
    budget.take(2**40)
    with pytest.raises(CapacityExhausted) as full:
        budget.take(1)
    assert full.value.facts == {"bytes_needed": 1, "in_use": 2**40, "limit": 2**40}
    assert full.value.detail == (
        f"1 bytes are needed, and {2**40} of {2**40} are in use; delete models or data sets, or raise LORA_MEMORY_MIB"
    )


def test_bytes_held_for_a_while_are_free_afterwards_whatever_happens():
    budget = Budget(10)
    with budget.held(7):
        assert budget.used == 7
        with pytest.raises(CapacityExhausted), budget.held(4):
            raise AssertionError("there is no room")
        assert budget.used == 7
    with pytest.raises(RuntimeError), budget.held(10):
        raise RuntimeError
    assert budget.used == 0


def test_threads_never_take_more_than_there_is():
    budget, start = Budget(100), threading.Barrier(8)

    def work(_):
        start.wait()
        refused = 0
        for _ in range(500):
            try:
                with budget.held(20):
                    assert budget.used <= 100
            except CapacityExhausted:
                refused += 1
        return refused

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert budget.used == 0
