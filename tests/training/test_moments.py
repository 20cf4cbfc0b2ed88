"""Full-batch mse by moments is full-batch mse by rows, also where the data is degenerate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.lora.init import stream
from service.training.adapters import Adapters
from service.training.moments import MIN_BLOCK_ROWS, ByMoments, gather, residual
from service.training.rows import Rows
from tests.training.making import SMALL, by_reference, gentle, in_double, layers, loss_of, plan_for, rows_for, run
from tests.training.test_optimizers import EVERY_BACKEND, EVERY_SETTING

NUMPY = EVERY_BACKEND[0]
FIELDS = ("rows", "weight", "x_mean", "y_mean", "xx", "xy", "yy")
ROWS, SEEDS = st.integers(1, 40), st.integers(0, 1_000)


def spoiled(how, x):
    """Inputs in which something is not as a regression would like it."""
    x = x.clone()
    if how == "a constant column":
        x[:, 0] = 3
    elif how == "a column of zeros":
        x[:, -1] = 0
    elif how == "the same row over and over":
        x[:] = x[0].clone()
    elif how == "two columns that are one":
        x[:, 0] = x[:, -1]
    elif how == "far from zero":
        x += 1_000
    return x


DEGENERATE = ["a constant column", "a column of zeros", "the same row over and over", "two columns that are one"]


def taken(steps):
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def moments_of(x, y, weight=None, backend=NUMPY):
    return taken(gather(backend, x, y, weight))


def must_be_near(one, other, scale=1e-9):
    """Two moments, to this share of what they hold."""
    for name in FIELDS:
        mine, its = (
            torch.as_tensor(np.asarray(getattr(moments, name)), dtype=torch.float64) for moments in (one, other)
        )
        size = max(float(mine.abs().max()), float(its.abs().max()), 1.0)
        torch.testing.assert_close(mine, its, rtol=0, atol=scale * size)


@EVERY_SETTING
@settings(max_examples=4)
@given(layer=layers(), n=ROWS, seed=SEEDS, weighted=st.booleans())
def test_a_run_by_moments_equals_the_reference_loop_in_float64(optimizer, chosen, layer, n, seed, weighted):
    x, y = rows_for("mse", layer, n, seed)
    weight = torch.rand(n, generator=stream(seed, "weight")) + 0.1 if weighted else None
    plan = plan_for("mse", n, optimizer=optimizer, epochs=8, path="moments", **chosen)
    ours = run(layer, x, y, plan, weight=weight)
    exact, *rows = in_double(layer, x, y)
    losses, trained = by_reference(exact, *rows, plan, weight=None if weight is None else weight.double())
    assert ours.losses == pytest.approx(losses, rel=1e-6, abs=1e-9 * losses[0])
    for name, tensor in ours.fitted.layer.trained().items():
        torch.testing.assert_close(tensor.double(), trained[name], rtol=1e-5, atol=1e-6)
    exact, *_ = in_double(ours.fitted.layer)
    final = loss_of(exact, *rows, "mse", None if weight is None else weight.double())
    assert ours.fitted.metrics["final_loss"] == pytest.approx(final, rel=1e-6, abs=1e-9 * losses[0])


@pytest.mark.parametrize("how", DEGENERATE)
@settings(max_examples=15)
@given(layer=layers(), n=st.integers(1, 20), seed=SEEDS)
def test_degenerate_data_trains_as_by_the_reference_loop(how, layer, n, seed):
    x, y = rows_for("mse", layer, n, seed)
    x = spoiled(how, x)
    plan = plan_for("mse", n, epochs=8, path="moments", optimizer="sgd", lr=0.01, momentum=0.9)
    losses, _ = by_reference(*in_double(layer, x, y), plan)
    assume(max(losses) < 1e6)
    ours = run(layer, x, y, plan)
    assert ours.losses == pytest.approx(losses, rel=1e-6, abs=1e-9 * losses[0])
    assert ours.fitted.metrics["final_loss"] >= ours.fitted.metrics["optimum_loss"] * (1 - 1e-9)


@settings(max_examples=20)
@given(layer=layers(), n=st.integers(2, 20), seed=SEEDS)
def test_data_far_from_zero_trains_as_by_the_reference_loop(layer, n, seed):
    x, y = rows_for("mse", layer, n, seed)
    x = spoiled("far from zero", x)
    plan = plan_for("mse", n, epochs=5, path="moments", lr=1e-4)
    losses, _ = by_reference(*in_double(layer, x, y), plan)
    assert run(layer, x, y, plan).losses == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("masked", [range(10), range(5, 20)])
def test_rows_that_weigh_nothing_may_hold_anything(masked):
    x, y = rows_for("mse", gentle(SMALL), 20)
    weight = torch.rand(20, generator=stream(0, "weight")) + 0.1
    weight[list(masked)] = 0
    here = weight > 0
    must_be_near(
        moments_of(x.masked_fill(~here[:, None], 1e9), y.masked_fill(~here[:, None], -1e9), weight),
        replace(moments_of(x[here], y[here], weight[here]), rows=20),
    )


def test_a_first_block_that_weighs_nothing_is_passed_over():
    n = 3 * MIN_BLOCK_ROWS
    x, y = torch.randn(n, 1_000, generator=stream(0, "x")), torch.randn(n, 24, generator=stream(0, "y"))
    weight = torch.ones(n)
    weight[: n // 2] = 0
    must_be_near(moments_of(x, y, weight), replace(moments_of(x[n // 2 :], y[n // 2 :]), rows=n))


def test_a_run_that_is_validated_on_moments_alone_has_no_rows_to_go_on_with():
    layer = gentle(SMALL)
    x, _ = rows_for("mse", layer, 20)
    other = moments_of(*rows_for("mse", layer, 10, 1))
    plan = plan_for("mse", 20, epochs=4, lr=1e-4, path="moments")
    ended = run(layer, x, layer(x), plan, validation_moments=other)
    assert ended.fitted.state.path == "moments"
    assert len(ended.losses) == len(ended.curve("validation_losses")) == 4


@settings(max_examples=20)
@given(layer=layers(), n=st.integers(2, 30), seed=SEEDS, epochs=st.integers(1, 6))
def test_where_the_loss_loses_its_digits_the_run_goes_on_with_its_rows(layer, n, seed, epochs):
    x, _ = rows_for("mse", layer, n, seed)
    plan = plan_for("mse", n, epochs=epochs, lr=1e-4, path="moments")
    ended = run(layer, x, layer(x), plan)
    assert len(ended.losses) == epochs
    assert all(loss < 1e-3 for loss in ended.losses)
    assert ended.losses[0] < 1e-9
    assert ended.fitted.state.path == "batch"
    assert ended.fitted.metrics["optimum_loss"] == 0
    assert ended.fitted.metrics["gap_closed"] <= 1


def test_a_run_that_nears_its_targets_changes_to_its_rows_and_misses_no_epoch():
    layer = gentle(SMALL)
    x, _ = rows_for("mse", layer, 40)
    other = gentle(SMALL, 5)
    y = layer.adapted(other.adapter())(x)
    plan = plan_for("mse", 40, epochs=3_000, lr=0.05, path="moments", schedule="cosine")
    ended = run(layer, x, y, plan)
    assert len(ended.losses) == 3_000
    assert ended.fitted.metrics["final_loss"] < 1e-8 * ended.losses[0]
    assert sum(epochs.curves["losses"].shape[0] for epochs in ended.epochs) == 3_000


def test_a_run_whose_validation_loss_is_lost_misses_no_epoch():
    layer = gentle(SMALL)
    x, y = rows_for("mse", layer, 20)
    held_out = Rows(x[:5], layer(x[:5]))
    plan = plan_for("mse", 20, epochs=6, lr=1e-9, path="moments")
    ended = run(layer, x, y, plan, validation=held_out)
    assert len(ended.losses) == 6
    assert len(ended.curve("validation_losses")) == 6


@settings(max_examples=40)
@given(SEEDS, st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 6), st.integers(1, 5), st.data())
def test_the_moments_of_parts_add_up_to_those_of_the_whole(seed, parts, inputs, outputs, data):
    numbers, n = stream(seed, "test"), sum(parts)
    weighted, shift = data.draw(st.booleans()), data.draw(st.sampled_from([0.0, 100.0]))
    x = torch.randn(n, inputs, generator=numbers) + shift
    y = torch.randn(n, outputs, generator=numbers)
    weight = torch.rand(n, generator=numbers) if weighted else torch.ones(n)
    pieces = zip(x.split(parts), y.split(parts), weight.split(parts), strict=True)
    first, *others = (moments_of(*piece) for piece in pieces)
    for other in others:
        first = first + other
    must_be_near(first, moments_of(x, y, weight))
    w, x, y = weight.double()[:, None], x.double(), y.double()
    x_mean, y_mean = (w * x).sum(0) / w.sum(), (w * y).sum(0) / w.sum()
    for name, expected in (
        ("x_mean", x_mean),
        ("y_mean", y_mean),
        ("xx", (w * (x - x_mean)).T @ (x - x_mean)),
        ("xy", (w * (x - x_mean)).T @ (y - y_mean)),
    ):
        torch.testing.assert_close(torch.as_tensor(getattr(first, name)), expected, rtol=1e-9, atol=1e-9)
    assert first.yy == pytest.approx(float((w * (y - y_mean) ** 2).sum()), abs=1e-9)


def test_many_blocks_make_the_moments_of_all_rows():
    numbers = stream(0, "test")
    x, y = torch.randn(20_000, 30, generator=numbers), torch.randn(20_000, 20, generator=numbers)
    assert len(list(gather(NUMPY, x, y))) > 2
    whole = moments_of(x, y)
    x_off, y_off = (rows.double() - rows.double().mean(0) for rows in (x, y))
    torch.testing.assert_close(torch.as_tensor(whole.xx), x_off.T @ x_off, rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(torch.as_tensor(whole.xy), x_off.T @ y_off, rtol=1e-10, atol=1e-8)
    must_be_near(moments_of(x, y, torch.ones(20_000)), moments_of(x, y))


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 12), st.data())
def test_a_weight_of_two_is_the_row_twice_and_one_of_zero_no_row(seed, n, data):
    numbers = stream(seed, "test")
    x, y = torch.randn(n, 4, generator=numbers), torch.randn(n, 3, generator=numbers)
    times = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(any)))
    weighted = moments_of(x, y, times.float())
    repeated = moments_of(x.repeat_interleave(times, 0), y.repeat_interleave(times, 0))
    for name in FIELDS[1:]:
        one, other = (torch.as_tensor(getattr(moments, name)) for moments in (weighted, repeated))
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(layer=layers(), n=ROWS, seed=SEEDS, weighted=st.booleans())
def test_numpy_and_torch_agree_on_the_loss_and_its_gradient(layer, n, seed, weighted):
    x, y = rows_for("mse", layer, n, seed)
    weight = torch.rand(n, generator=stream(seed, "weight")) if weighted else None
    found = []
    for backend in EVERY_BACKEND:
        adapters = Adapters(backend, [layer, layer], "float64")
        known = residual(backend, moments_of(x, y, weight, backend), layer)
        (losses,) = ByMoments(adapters, [known, known]).epoch()
        found.append((backend.tensor(losses, torch.float64), backend.tensor(adapters.gradient, torch.float64)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
