"""The six losses and their hand-written gradients are those of torch.nn and autograd."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.init import stream
from service.training.losses import COSINE_EPS
from service.training.losses import LOSSES as OURS
from service.training.plan import LOSS_TARGETS, LossName
from tests import reference
from tests.training.making import targets_for

EVERY_LOSS = pytest.mark.parametrize("loss", sorted(OURS))
NUMBERS = sorted(name for name, targets in LOSS_TARGETS.items() if targets == "numbers")
ROWS, COLUMNS, SEEDS = st.integers(1, 20), st.integers(1, 12), st.integers(0, 10_000)


def by_rows(loss, p, t):
    """The mean of the rows' losses, and its gradient in the outputs, by numpy and by torch alike."""
    before = t.clone()
    each, gradient = OURS[loss](torch, p.clone()[None], t[None])
    for ours, numpys in zip((each, gradient), OURS[loss](np, p.numpy().copy()[None], t.numpy()[None]), strict=True):
        assert ours.shape == numpys.shape
        small = 1e-5 if p.dtype == torch.float32 else 1e-12
        torch.testing.assert_close(
            torch.from_numpy(numpys), ours, rtol=small, atol=small * (float(ours.abs().max()) + 0.1)
        )
    assert each.shape == (1, len(p))
    assert gradient.shape == (1, *p.shape)
    assert torch.equal(t, before)
    return each[0].mean(), gradient[0] / len(p)


def autograd(loss, p, t):
    """The loss of torch.nn, and its gradient in the outputs."""
    p = p.clone().requires_grad_()
    value = reference.LOSSES[loss](p, t)
    value.backward()
    return value.detach(), p.grad


def must_agree(loss, p, t, **tolerance):
    value, gradient = by_rows(loss, p, t)
    expected, by_autograd = autograd(loss, p, t)
    torch.testing.assert_close(value, expected, **tolerance)
    torch.testing.assert_close(gradient, by_autograd, **tolerance)
    return value, gradient


def test_the_losses_that_may_be_named_are_those_that_exist():
    assert set(get_args(LossName)) == set(OURS) == set(LOSS_TARGETS) == set(reference.LOSSES)


@EVERY_LOSS
@settings(max_examples=25)
@given(n=ROWS, out=COLUMNS, seed=SEEDS, scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_a_loss_and_its_gradient_are_those_of_torch_nn_and_autograd(loss, n, out, seed, scale):
    numbers = stream(seed, "test")
    p = scale * torch.randn(n, out, generator=numbers)
    t = targets_for(loss, n, out, numbers)
    # As close as float32 comes: where terms cancel, rounding is measured against them. Those of a cosine grow as
    # the outputs get shorter.
    terms = 1 / min(1, float(p.norm(dim=1).min())) if loss == "cosine" else 1
    must_agree(loss, p, t, rtol=1e-5, atol=1e-6 * terms)


@EVERY_LOSS
@settings(max_examples=25)
@given(n=ROWS, out=COLUMNS, seed=SEEDS)
def test_in_float64_they_agree_to_twelve_digits(loss, n, out, seed):
    numbers = stream(seed, "test")
    p = torch.randn(n, out, generator=numbers, dtype=torch.float64)
    must_agree(loss, p, targets_for(loss, n, out, numbers, torch.float64), rtol=1e-12, atol=1e-12)


@EVERY_LOSS
@settings(max_examples=10)
@given(n=ROWS, out=COLUMNS, seed=SEEDS, runs=st.integers(1, 4), shared=st.booleans())
def test_runs_side_by_side_have_the_losses_that_each_has_alone(loss, n, out, seed, runs, shared):
    numbers = stream(seed, "test")
    p = torch.randn(runs, n, out, generator=numbers)
    t = torch.stack([targets_for(loss, n, out, numbers) for _ in range(1 if shared else runs)])
    each, gradient = OURS[loss](torch, p.clone(), t)
    for run in range(runs):
        alone, its = OURS[loss](torch, p[run : run + 1].clone(), t[:1] if shared else t[run : run + 1])
        torch.testing.assert_close(each[run], alone[0])
        torch.testing.assert_close(gradient[run], its[0])


@pytest.mark.parametrize("loss", NUMBERS)
def test_outputs_on_their_targets_are_as_good_as_can_be(loss):
    p = torch.randn(5, 4, generator=stream(0, "test"))
    value, gradient = must_agree(loss, p, p.clone(), rtol=1e-6, atol=1e-7)
    assert abs(float(value)) < 1e-6
    assert float(gradient.abs().max()) < 1e-7


def test_huber_bends_exactly_at_an_error_of_one():
    t = torch.zeros(1, 7)
    p = torch.tensor([[-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]])
    value, gradient = must_agree("huber", p, t, rtol=0, atol=0)
    assert float(value) == pytest.approx((1.5 + 0.5 + 0.125) * 2 / 7)
    torch.testing.assert_close(gradient * 7, p.clamp(-1, 1))


@pytest.mark.parametrize("away", [-(2**-23), 0, 2**-23])
def test_huber_agrees_on_both_sides_of_the_bend(away):
    must_agree("huber", torch.tensor([[1.0 + away, -1.0 - away]]), torch.zeros(1, 2), rtol=0, atol=0)


def test_huber_is_half_the_squared_error_within_the_bend_and_the_error_less_a_half_outside():
    small = torch.rand(4, 3, generator=stream(0, "test"))
    large = 1 + small
    zero = torch.zeros(4, 3)
    torch.testing.assert_close(by_rows("huber", small, zero)[0], by_rows("mse", small, zero)[0] / 2)
    torch.testing.assert_close(by_rows("huber", large, zero)[0], by_rows("mae", large, zero)[0] - 0.5)


def test_mae_has_no_slope_where_there_is_no_error():
    p = torch.tensor([[0.0, 1.0, -1.0]])
    _, gradient = must_agree("mae", p, torch.zeros(1, 3), rtol=0, atol=0)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 1 / 3, -1 / 3]]))


@pytest.mark.parametrize("which", ["outputs", "targets", "both"])
def test_rows_of_zeros_have_a_cosine_of_zero(which):
    p, t = torch.randn(2, 3, 4, generator=stream(3, "test"))
    if which in ("outputs", "both"):
        p[1] = 0
    if which in ("targets", "both"):
        t[1] = 0
    value, gradient = must_agree("cosine", p, t)
    assert gradient.isfinite().all()
    rest = [0, 2]
    torch.testing.assert_close(1 - value, (1 - by_rows("cosine", p[rest], t[rest])[0]) * 2 / 3)


@pytest.mark.parametrize("length", [1e-12, 1e-9, 0.99e-8, 1.01e-8, 1e-7, 1e-3, 1e3, 1e12])
def test_cosine_is_divided_by_the_length_or_by_eps_whichever_is_longer(length):
    numbers = stream(5, "test")
    t = torch.randn(3, 4, generator=numbers, dtype=torch.float64)
    p = torch.nn.functional.normalize(torch.randn(3, 4, generator=numbers, dtype=torch.float64)) * length
    value, gradient = by_rows("cosine", p, t)
    p.requires_grad_()
    cos = (p * t).sum(1) / p.norm(dim=1).clamp_min(COSINE_EPS) / t.norm(dim=1).clamp_min(COSINE_EPS)
    expected = 1 - cos.mean()
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, p.grad, rtol=1e-9, atol=1e-9 * float(p.grad.abs().max()))


@settings(max_examples=25)
@given(n=ROWS, out=st.integers(2, 12), seed=SEEDS, factor=st.floats(0.1, 10))
def test_cosine_does_not_see_lengths_and_its_gradient_only_turns(n, out, seed, factor):
    p, t = torch.randn(2, n, out, generator=stream(seed, "test"), dtype=torch.float64)
    value, gradient = by_rows("cosine", p, t)
    torch.testing.assert_close(by_rows("cosine", p * factor, t)[0], value)
    torch.testing.assert_close((gradient * p).sum(1), torch.zeros(n, dtype=p.dtype), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [80.0, 1e4, 1e20, 1e38])
def test_large_logits_do_not_overflow_cross_entropy(size):
    p = torch.tensor([[size, 0.0, -size], [0.0, size, -size], [-size, -size, -size]])
    t = torch.tensor([0, 2, 1])
    value, gradient = must_agree("cross_entropy", p, t)
    assert gradient.isfinite().all()
    assert float(value) == pytest.approx((2 * size + torch.tensor(3.0).log().item()) / 3)


@pytest.mark.parametrize("size", [80.0, 1e4, 1e20, 1e38])
def test_large_logits_do_not_overflow_bce(size):
    p = torch.tensor([[size, -size, size, -size, 0.0]])
    t = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.5]])
    value, gradient = must_agree("bce_with_logits", p, t)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient * 5, torch.tensor([[0.0, 0.0, 1.0, -1.0, 0.0]]))
    assert float(value) == pytest.approx((2 * size + torch.tensor(2.0).log().item()) / 5)


@settings(max_examples=25)
@given(n=ROWS, out=COLUMNS, seed=SEEDS)
def test_classes_pull_on_the_outputs_of_a_row_without_moving_their_sum(n, out, seed):
    numbers = stream(seed, "test")
    p, t = torch.randn(n, out, generator=numbers), targets_for("cross_entropy", n, out, numbers)
    _, gradient = by_rows("cross_entropy", p, t)
    torch.testing.assert_close(gradient.sum(1), torch.zeros(n), rtol=0, atol=1e-6)
    assert (gradient[torch.arange(n), t] <= 0).all()


def test_one_class_alone_is_always_right():
    value, gradient = must_agree(
        "cross_entropy", torch.tensor([[-2.0], [0.0], [0.5], [9.0]]), torch.zeros(4, dtype=torch.int64)
    )
    assert float(value) == 0
    assert not gradient.any()


@EVERY_LOSS
def test_a_number_that_is_not_finite_makes_the_loss_not_finite(loss):
    numbers = stream(1, "test")
    p, t = torch.randn(3, 4, generator=numbers), targets_for(loss, 3, 4, numbers)
    p[1, 2] = float("nan")
    assert not OURS[loss](torch, p.clone()[None], t[None])[0][0, 1].isfinite()
    assert not np.isfinite(OURS[loss](np, p.numpy()[None], t.numpy()[None])[0][0, 1])
