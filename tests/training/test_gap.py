"""No run is below the optimum that it is told, the closed form is at it, and long runs come near it."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.lora.spec import Spec
from service.training.cost import OPTIMUM_FEATURES
from service.training.fit import Diverged
from service.training.lesson import Lesson
from service.training.moments import Moments, best_losses, residual
from service.training.rows import Rows
from tests.training.making import (
    SMALL,
    gentle,
    in_double,
    layer_of,
    layers,
    learn,
    loss_of,
    plan_for,
    rows_for,
    run,
    unadapted,
)
from tests.training.test_moments import DEGENERATE, NUMPY, moments_of, spoiled
from tests.training.test_optimizers import EVERY_SETTING

HOW = st.sampled_from(["as it is", "far from zero", *DEGENERATE])
ROWS, SEEDS = st.integers(1, 30), st.integers(0, 1_000)


def closed(n):
    return plan_for("mse", n, optimizer="closed_form", path="moments")


def least(layer, x, y):
    """The lowest mse of any change of the weight, and of the bias where that is trained, by least squares."""
    layer, x, y = in_double(layer, x, y)
    left = y - layer.frozen(x)
    if layer.own_bias is not None:
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    size = x.norm(dim=0)
    x = x / torch.where(size > 0, size, torch.ones_like(size))
    left = left - x @ torch.linalg.lstsq(x, left, driver="gelsd").solution
    return float((left**2).mean())


@EVERY_SETTING
@pytest.mark.parametrize("path", ["moments", "batch"])
@settings(max_examples=3)
@given(layer=layers(), n=ROWS, seed=SEEDS, how=HOW, epochs=st.sampled_from([1, 60]))
def test_no_optimizer_beats_the_optimum(optimizer, chosen, path, layer, n, seed, how, epochs):
    x, y = rows_for("mse", layer, n, seed)
    x = spoiled(how, x)
    lr = 1e-9 if how == "far from zero" else 0.01
    ended = run(layer, x, y, plan_for("mse", n, optimizer=optimizer, path=path, epochs=epochs, lr=lr, **chosen))
    assume(not isinstance(ended.outcome, Diverged))
    metrics = ended.fitted.metrics
    # By rows a loss is summed in float32.
    small = 1e-9 if path == "moments" else 1e-5
    assert metrics["final_loss"] >= metrics["optimum_loss"] * (1 - small) - (path == "batch") * 1e-10
    assert metrics["gap_closed"] <= 1 + small * 10


@settings(max_examples=50)
@given(layer=layers(), n=ROWS, seed=SEEDS, how=HOW)
def test_the_closed_form_is_at_the_optimum(layer, n, seed, how):
    x, y = rows_for("mse", layer, n, seed)
    x = spoiled(how, x)
    ended = run(layer, x, y, closed(n))
    metrics, first = ended.fitted.metrics, ended.losses[0]
    assert len(ended.losses) == 1
    assert first == pytest.approx(loss_of(*in_double(layer, x, y), "mse"), rel=1e-6)
    # The weights are rounded to float32, which the outputs feel by the size of the inputs.
    rounding = 1e-6 if how == "far from zero" else 1e-10
    assert metrics["final_loss"] == pytest.approx(metrics["optimum_loss"], rel=1e-6, abs=rounding)
    exact, *rows = in_double(ended.fitted.layer, x, y)
    assert loss_of(exact, *rows, "mse") == pytest.approx(metrics["final_loss"], rel=1e-4, abs=rounding)


@settings(max_examples=30)
@given(layer=layers(), n=ROWS, seed=SEEDS, how=st.sampled_from(["as it is", *DEGENERATE]))
def test_losses_by_rank_fall_from_the_base_alone_to_least_squares(layer, n, seed, how):
    x, y = rows_for("mse", layer, n, seed)
    x = spoiled(how, x)
    known = residual(NUMPY, moments_of(x, y), layer)
    losses = best_losses(known, bias_is_free=layer.own_bias is not None)
    assert len(losses) == min(layer.weight.shape) + 1
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(least(layer, x, y), rel=1e-6, abs=1e-9)
    if layer.own_bias is None:
        exact, *rows = in_double(unadapted(layer), x, y)
        assert losses[0] == pytest.approx(loss_of(exact, *rows, "mse"), rel=1e-6)


@pytest.mark.parametrize("train_bias", [False, True])
@pytest.mark.parametrize("path", ["moments", "batch"])
def test_adam_closes_the_gap_of_an_easy_problem(train_bias, path):
    layer = gentle(Spec(in_features=6, out_features=4, rank=2, init="normal", train_bias=train_bias), 1)
    x, y = rows_for("mse", layer, 200, 1)
    ended = run(layer, x, y, plan_for("mse", 200, epochs=2_000, lr=0.02, path=path, schedule="cosine")).fitted.metrics
    assert 1 - 1e-4 <= ended["gap_closed"] <= 1 + 1e-5


@pytest.mark.parametrize("path", ["moments", "batch"])
def test_a_run_that_had_nothing_to_gain_has_closed_its_gap(path):
    layer = layer_of(SMALL)
    x, _ = rows_for("mse", layer, 30)
    still = unadapted(layer)
    plan = plan_for("mse", 30, epochs=2, optimizer="sgd", lr=1e-30, path=path)
    metrics = run(still, torch.zeros_like(x), still(torch.zeros_like(x)), plan).fitted.metrics
    assert metrics == {"final_loss": 0.0, "optimum_loss": 0.0, "gap_closed": 1.0}


def test_both_paths_are_told_the_same_optimum():
    layer = gentle(SMALL)
    x, y = rows_for("mse", layer, 30)
    one, other = (run(layer, x, y, plan_for("mse", 30, path=path)).fitted.metrics for path in ("moments", "batch"))
    assert one["optimum_loss"] == other["optimum_loss"]
    assert one["gap_closed"] == pytest.approx(other["gap_closed"], rel=1e-4)


@pytest.mark.parametrize("chosen", [{"loss": "mae"}, {"batch_size": 5}])
def test_where_the_optimum_is_not_known_that_is_said(chosen):
    layer = gentle(SMALL)
    plan = plan_for(**{"loss": "mse", "n": 30, **chosen})
    metrics = run(layer, *rows_for(plan.loss, layer, 30), plan).fitted.metrics
    assert metrics["optimum_loss"] is metrics["gap_closed"] is None
    assert metrics["optimum_unknown"] == "the optimum is known for mse in full batches alone"


@pytest.mark.parametrize("more", [0, 1])
def test_the_optimum_of_a_wide_layer_by_rows_is_not_worth_its_price(more):
    layer = layer_of(Spec(in_features=OPTIMUM_FEATURES + more, out_features=2, rank=1))
    metrics = run(layer, *rows_for("mse", layer, 5), plan_for("mse", 5, epochs=1)).fitted.metrics
    assert (metrics["optimum_loss"] is None) == bool(more)


@settings(max_examples=20)
@given(layer=layers(), n=ROWS, seed=SEEDS)
def test_moments_alone_train_as_the_rows_they_are_of(layer, n, seed):
    rows = Rows(*rows_for("mse", layer, n, seed))
    moments = moments_of(rows.x, rows.y)
    assert isinstance(moments, Moments)
    plan = plan_for("mse", n, path="moments")
    one, other = learn(Lesson(layer, plan, moments=moments)), learn(Lesson(layer, plan, rows))
    assert one.losses == other.losses
    if other.fitted.state.path == "moments":
        assert one.fitted.metrics == other.fitted.metrics


def test_moments_alone_of_targets_that_are_met_have_no_rows_to_go_on_with_and_end_at_zero():
    layer = gentle(SMALL)
    x, _ = rows_for("mse", layer, 30)
    plan = plan_for("mse", 30, path="moments", lr=1e-6)
    ended = learn(Lesson(layer, plan, moments=moments_of(x, layer(x)))).fitted
    assert 0 <= ended.metrics["final_loss"] < 1e-9
    assert len(learn(Lesson(layer, plan, moments=moments_of(x, layer(x)))).losses) == 10
