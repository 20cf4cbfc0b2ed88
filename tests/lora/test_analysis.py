"""What is said of a change is what its whole matrix would say, which is not formed for it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.analysis import CELLS, cosine, effective_rank, energy, norm, pooled, pooled_change, stable_rank
from service.lora.analysis import subspaces as overlapping
from service.lora.change import Change
from service.lora.init import stream

close = torch.testing.assert_close


def some(*shape, seed=0):
    return torch.randn(shape, generator=stream(seed, "some"), dtype=torch.float64)


@st.composite
def changes(draw, shape=None):
    """A product of factors of any ranks, or a whole matrix."""
    rows, columns = shape or (draw(st.integers(1, 150)), draw(st.integers(1, 150)))
    ranks, seed = draw(st.integers(1, 12)), draw(st.integers(0, 1_000))
    if draw(st.booleans()):
        return Change(some(rows, columns, seed=seed))
    return Change(some(ranks, columns, seed=seed), some(rows, ranks, seed=seed + 1))


@st.composite
def pairs(draw):
    """Two changes of one shape."""
    shape = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    return draw(changes(shape)), draw(changes(shape))


@settings(max_examples=40)
@given(changes())
def test_singular_values_are_those_of_the_whole_matrix(change):
    values = change.values()
    close(values, torch.linalg.svdvals(change.whole())[: len(values)], atol=1e-9, rtol=1e-9)
    U, same, Vt = change.svd()
    close(same, values)
    close(U @ torch.diag(same) @ Vt, change.whole())


def mean_of_blocks(matrix: np.ndarray) -> np.ndarray:
    """The pooling as numpy would write it."""
    rows = np.array_split(np.arange(len(matrix)), min(CELLS, len(matrix)))
    columns = np.array_split(np.arange(matrix.shape[1]), min(CELLS, matrix.shape[1]))
    return np.array([[matrix[np.ix_(r, c)].mean() for c in columns] for r in rows])


@settings(max_examples=20)
@given(changes())
def test_the_picture_of_a_change_is_that_of_its_whole_matrix(change):
    close(pooled_change(change), pooled(change.whole()))
    close(pooled(change.whole()).numpy(), mean_of_blocks(change.whole().numpy()))


@settings(max_examples=40)
@given(pairs())
def test_the_cosine_is_that_of_the_whole_matrices(pair):
    one, other = pair
    D1, D2 = one.whole(), other.whole()
    assert cosine(one, other, (D1.norm(), D2.norm())) == pytest.approx(float((D1 * D2).sum() / D1.norm() / D2.norm()))
    assert one.inner(other) == pytest.approx(other.inner(one))


@settings(max_examples=40)
@given(pairs(), st.floats(0.01, 100))
def test_with_itself_and_with_a_multiple_all_is_one(pair, factor):
    one, _ = pair
    twin = Change(-factor * one.A, one.B)
    size = float(one.whole().norm())
    assert cosine(one, one, (size, size)) == pytest.approx(1)
    assert cosine(one, twin, (size, factor * size)) == pytest.approx(-1)
    assert overlapping(one.svd(), twin.svd()) == pytest.approx((1, 1))


@settings(max_examples=20)
@given(st.integers(2, 20), st.integers(0, 100))
def test_between_orthogonal_spaces_all_is_zero(side, seed):
    Q, _ = torch.linalg.qr(some(side, side, seed=seed))
    half = side // 2
    one, other = Change(Q[:half], Q[:, :half]), Change(Q[half:], Q[:, half:])
    sizes = half**0.5, (side - half) ** 0.5
    assert cosine(one, other, sizes) == pytest.approx(0, abs=1e-9)
    assert overlapping(one.svd(), other.svd()) == pytest.approx((0, 0), abs=1e-9)


@settings(max_examples=40)
@given(pairs())
def test_the_overlap_of_two_spaces_is_symmetric_and_a_share(pair):
    one, other = (change.svd() for change in pair)
    shares = overlapping(one, other)
    assert shares == pytest.approx(overlapping(other, one))
    assert all(0 <= share <= 1 for share in shares)


def test_a_space_within_a_larger_one_overlaps_it_wholly():
    A, B = some(5, 12), some(9, 5)
    assert overlapping(Change(A, B).svd(), Change(A[:2], B[:, :2]).svd()) == pytest.approx((1, 1))


@given(st.integers(1, 50), st.floats(1e-3, 1e3))
def test_equal_singular_values_count_as_so_many_ranks(count, size):
    values = torch.full((count,), size, dtype=torch.float64)
    assert effective_rank(values) == pytest.approx(count)
    assert stable_rank(values) == pytest.approx(count)
    assert energy(values) == pytest.approx([rank / count for rank in range(1, count + 1)])


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30))
def test_ranks_lie_between_one_and_the_number_of_values_and_energy_rises_to_one(sizes):
    values = torch.tensor(sorted(sizes, reverse=True), dtype=torch.float64)
    assert 1 - 1e-9 <= stable_rank(values) <= len(sizes) + 1e-9
    assert 1 - 1e-9 <= effective_rank(values) <= len(sizes) + 1e-9
    shares = energy(values)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_of_no_change_there_is_nothing_to_say():
    none = Change(some(3, 6), torch.zeros(5, 3, dtype=torch.float64))
    values = none.values()
    assert (effective_rank(values), stable_rank(values), energy(values)) == (0, 0, None)
    assert cosine(none, none, (0.0, 0.0)) is None
    assert overlapping(none.svd(), Change(some(5, 6)).svd()) == (None, None)


def test_numbers_as_large_as_float32_has_them_stay_finite():
    huge = Change(torch.full((2, 40), 3e38, dtype=torch.float64), torch.full((30, 2), 3e38, dtype=torch.float64))
    values = huge.values()
    size = float(values.norm())
    assert all(map(math.isfinite, [size, effective_rank(values), stable_rank(values), *energy(values)]))
    assert cosine(huge, huge, (size, size)) == pytest.approx(1)


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 1_000])
def test_the_norm_of_a_weight_is_that_in_float64(rows):
    weight = torch.randn(rows, 3, generator=stream(1, "W"))
    assert norm(weight) == pytest.approx(float(weight.double().norm()))
