"""Curves by few points, which hide neither a low, nor a high, nor a gap."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.thinned import epochs_of


def test_a_curve_that_is_short_enough_is_whole() -> None:
    assert epochs_of([[3.0, 2.0, 1.0]], 3) == [1, 2, 3]
    assert epochs_of([], 10) == []


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(4, 50))
def test_the_ends_the_lowest_and_the_highest_are_kept(curve: list[float], most: int) -> None:
    epochs = epochs_of([curve], most)
    kept = [curve[epoch - 1] for epoch in epochs]
    assert len(epochs) <= most
    assert epochs == sorted(set(epochs))
    assert {1, len(curve)} <= set(epochs)
    assert (min(kept), max(kept)) == (min(curve), max(curve))


def test_each_of_several_curves_keeps_its_own() -> None:
    one, other = [0.0] * 100, [0.0] * 100
    one[30], other[60] = -1.0, 1.0
    assert {31, 61} <= set(epochs_of([one, other], 20))


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_so_few_points_are_the_ends_at_most(most: int) -> None:
    assert epochs_of([[float(i) for i in range(9)]], most) == [[], [9], [1, 9], [1, 9]][most]


def test_a_number_that_is_not_finite_is_kept() -> None:
    curve = [1.0] * 100
    curve[50] = math.nan
    assert 51 in epochs_of([curve], 10)
