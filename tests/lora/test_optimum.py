"""The best adapter of a rank is the best: against least squares, against brute force, and against any optimizer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.init import stream
from service.lora.optimum import best, explained

close = torch.testing.assert_close


def moments(x, t):
    """What the optimum is computed from."""
    return x.T @ x / len(x), x.T @ t / len(x), float((t * t).sum() / len(x))


def error(x, t, D):
    """What a change D (out, in) leaves of targets t, as a mean over the rows."""
    return float(((t - x @ D.T) ** 2).sum() / len(x))


LACKING = st.sampled_from(["nothing", "rows", "a column", "a repeated column", "scale"])


@st.composite
def problems(draw, lacking=LACKING):
    """Inputs and targets of float64, the inputs sometimes of lower rank than they are wide, or unlike in scale."""
    inputs, outputs = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    numbers = stream(draw(st.integers(0, 10_000)), "test")
    lack = draw(lacking)
    n = draw(st.integers(1, inputs)) if lack == "rows" else draw(st.integers(20, 40))
    x = torch.randn(n, inputs, generator=numbers, dtype=torch.float64)
    t = x @ torch.randn(inputs, outputs, generator=numbers, dtype=torch.float64)
    t += torch.randn(n, outputs, generator=numbers, dtype=torch.float64)
    if lack == "a column":
        x[:, 0] = 0
    if lack == "a repeated column":
        x[:, -1] = x[:, 0]
    if lack == "scale":
        x *= 10.0 ** torch.randint(-4, 5, (inputs,), generator=numbers)
    return x, t


@settings(max_examples=100)
@given(problems())
def test_at_full_rank_what_is_left_is_the_residual_of_least_squares(problem):
    x, t = problem
    xx, xt, tt = moments(x, t)
    solution = torch.linalg.lstsq(x, t, driver="gelsd").solution
    left = error(x, t, solution.T)
    ranks = min(xt.shape)
    assert tt - float(explained(xx, xt).sum()) == pytest.approx(left, rel=1e-6, abs=1e-8 * tt)
    A, B = best(xx, xt, ranks)
    assert error(x, t, B @ A) == pytest.approx(left, rel=1e-6, abs=1e-8 * tt)


@settings(max_examples=60)
@given(problems(), st.data())
def test_the_best_of_a_rank_is_the_cut_off_svd_of_the_fitted_values(problem, data):
    x, t = problem
    xx, xt, tt = moments(x, t)
    ranks = min(xt.shape)
    rank = data.draw(st.integers(1, ranks))
    # Fitted values x D are those of a projection of t onto the columns of x, of which an SVD keeps the best.
    unscaled = x / torch.where(x.norm(dim=0) > 0, x.norm(dim=0), torch.ones_like(x[0]))
    U, S, _ = torch.linalg.svd(unscaled, full_matrices=False)
    U = U[:, 1e-6 * S[0] < S] if len(S) and float(S[0]) > 0 else U[:, :0]
    taken = torch.linalg.svdvals(U.T @ t) ** 2 / len(x) if U.shape[1] else torch.zeros(0, dtype=x.dtype)
    gains = torch.zeros(ranks, dtype=x.dtype)
    gains[: min(ranks, len(taken))] = taken[:ranks]
    close(explained(xx, xt), gains, rtol=1e-6, atol=1e-8 * tt)
    A, B = best(xx, xt, rank)
    assert (A.shape, B.shape) == ((rank, x.shape[1]), (t.shape[1], rank))
    assert error(x, t, B @ A) == pytest.approx(tt - float(gains[:rank].sum()), rel=1e-6, abs=1e-8 * tt)


@settings(max_examples=60)
@given(problems())
def test_each_further_rank_takes_less_away_and_none_gives_back(problem):
    xx, xt, tt = moments(*problem)
    gains = explained(xx, xt)
    assert gains.shape == (min(xt.shape),)
    assert (gains >= 0).all()
    assert (gains.diff() <= 1e-12 * tt).all()
    assert float(gains.sum()) <= tt * (1 + 1e-9)


@settings(max_examples=60)
@given(problems(st.just("nothing")), st.data())
def test_no_step_away_from_the_best_is_a_step_down(problem, data):
    x, t = problem
    xx, xt, tt = moments(x, t)
    rank = data.draw(st.integers(1, min(xt.shape)))
    A, B = best(xx, xt, rank)
    least = error(x, t, B @ A)
    numbers = stream(data.draw(st.integers(0, 10_000)), "test")
    for size in (1e-4, 1e-2, 1.0):
        other_A = A + size * torch.randn(A.shape, generator=numbers, dtype=A.dtype)
        other_B = B + size * torch.randn(B.shape, generator=numbers, dtype=B.dtype)
        assert error(x, t, other_B @ other_A) >= least - 1e-9 * tt


def test_a_rank_beyond_what_the_inputs_can_tell_apart_stays_zero():
    x = torch.ones(5, 4, dtype=torch.float64)
    t = torch.randn(5, 3, generator=stream(0, "test"), dtype=torch.float64)
    xx, xt, tt = moments(x, t)
    A, B = best(xx, xt, 3)
    assert not A[1:].any()
    assert not B[:, 1:].any()
    assert error(x, t, B @ A) == pytest.approx(float(((t - t.mean(0)) ** 2).sum()) / 5)
    assert explained(xx, xt)[1:].max() <= 1e-12 * tt


@pytest.mark.parametrize("inputs", [0.0, 1.0])
def test_where_nothing_can_be_learned_nothing_is(inputs):
    x, t = torch.full((6, 3), inputs, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.float64)
    xx, xt, _ = moments(x, t)
    assert not explained(xx, xt).any()
    A, B = best(xx, xt, 2)
    assert not (B @ A).any()
    assert A.isfinite().all()


@settings(max_examples=60)
@given(problems(), st.sampled_from([0.0, 1.0, 1e3]), st.data())
def test_moments_about_the_mean_stand_for_those_about_zero(problem, offset, data):
    x, t = problem
    x = x + offset * x.std(dim=0, correction=0)
    _, xt, tt = moments(x, t)
    mean = x.mean(0)
    xx, _, _ = moments(x - mean, t)
    rank = data.draw(st.integers(1, min(xt.shape)))
    A, B = best(xx, xt, rank, mean)
    left = tt - float(explained(xx, xt, mean)[:rank].sum())
    assert error(x, t, B @ A) == pytest.approx(left, rel=1e-6, abs=1e-8 * tt)
    full = torch.linalg.lstsq(x, t, driver="gelsd").solution
    at_full_rank = tt - float(explained(xx, xt, mean).sum())
    assert at_full_rank == pytest.approx(error(x, t, full.T), rel=1e-6, abs=1e-8 * tt)


def test_far_from_zero_the_digits_of_what_varies_are_kept():
    numbers = stream(0, "test")
    away, mean = torch.randn(500, 2, generator=numbers, dtype=torch.float64), torch.full((2,), 1e6, dtype=torch.float64)
    t = away[:, :1] - away[:, 1:] + 0.5 * torch.randn(500, 1, generator=numbers, dtype=torch.float64)
    t -= t.mean(0)
    away -= away.mean(0)
    x = away + mean
    xx, xt, tt = moments(away, t)
    slope = torch.linalg.lstsq(torch.cat([away, torch.ones(500, 1, dtype=t.dtype)], 1), t).solution[:2]
    # Without a bias, the two slopes must cancel at the mean but for the gap there, which is 0.
    left = error(away, t, slope.T)
    reached = tt - float(explained(xx, xt, mean).sum())
    assert left <= reached * (1 + 1e-9)
    assert reached <= 1.02 * left
    A, B = best(xx, xt, 1, mean)
    assert error(x, t, B @ A) == pytest.approx(reached, rel=1e-4)
