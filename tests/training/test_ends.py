"""A run leaves the layer it was given alone, ends or diverges as it says, and is the same for the same seed."""

import math

import pytest
import torch
from hypothesis import given, settings

from service.lora.spec import Spec
from service.training.fit import Diverged, fit, fit_one
from service.training.lesson import Lesson
from service.training.losses import LOSSES
from service.training.plan import Plan
from service.training.rows import Rows
from service.training.sources import Random
from tests.training.making import (
    SMALL,
    by_reference,
    copies,
    layer_of,
    layers,
    loss_of,
    plan_for,
    rows_for,
    run,
    unchanged,
)
from tests.training.test_fit import near, sizes

EVERY_LOSS = pytest.mark.parametrize("loss", sorted(LOSSES))


@settings(max_examples=25)
@given(layers(), sizes())
def test_the_given_layer_and_its_rows_stay_bit_for_bit(layer, size):
    n, batch_size = size
    x, y = rows_for("mse", layer, n)
    before, rows = copies(layer), (x.clone(), y.clone())
    run(layer, x, y, plan_for("mse", n, batch_size=batch_size), dropout=0.2)
    assert unchanged(layer, before)
    assert torch.equal(x, rows[0])
    assert torch.equal(y, rows[1])


@settings(max_examples=25)
@given(layers())
def test_the_trained_layer_shares_the_base_and_nothing_else(layer):
    x, y = rows_for("mse", layer, 9)
    trained = run(layer, x, y, plan_for("mse", 9)).fitted.layer
    assert trained.weight is layer.weight
    assert trained.bias is layer.bias
    assert trained.scaling == layer.scaling
    given_homes, homes = (
        [tensor.untyped_storage() for tensor in which.adapter().values()] for which in (layer, trained)
    )
    assert len({home.data_ptr() for home in (*given_homes, *homes)}) == 2 * len(homes)
    # Each has a storage of its own size, so that a small tensor does not keep a large one alive.
    assert [home.nbytes() for home in homes] == [tensor.nbytes for tensor in trained.adapter().values()]


def test_without_train_bias_the_bias_stays_frozen():
    layer = layer_of(SMALL)
    trained = run(layer, *rows_for("mse", layer, 9), plan_for("mse", 9)).fitted.layer
    assert trained.own_bias is None
    assert trained.adapter().keys() == {"A", "B"}


@EVERY_LOSS
def test_with_train_bias_only_the_adapters_own_bias_moves(loss):
    layer = layer_of(Spec(**{**vars(SMALL), "train_bias": True}))
    before = copies(layer)
    trained = run(layer, *rows_for(loss, layer, 9), plan_for(loss, 9)).fitted.layer
    assert (trained.own_bias != layer.own_bias).all()
    assert trained.bias is layer.bias
    assert unchanged(layer, before)


def test_a_bias_of_its_own_that_stays_where_it_starts_changes_no_loss():
    layer = layer_of(SMALL)
    own = layer.adapted({"own_bias": layer.bias.clone()})
    x, y = rows_for("mse", layer, 9)
    still = plan_for("mse", 9, epochs=1)
    assert run(own, x, y, still).losses == near(run(layer, x, y, still).losses)


def test_a_closed_run_stops_between_two_steps_and_leaves_everything_as_it_was():
    layer = layer_of(SMALL)
    before = copies(layer)
    steps = fit([Lesson(layer, plan_for("mse", 9, batch_size=3), Rows(*rows_for("mse", layer, 9)))])
    assert [next(steps) for _ in range(2)] == [None, None]
    steps.close()
    assert next(steps, "over") == "over"
    assert unchanged(layer, before)


def test_nothing_happens_before_the_first_step_is_asked_for():
    layer = layer_of(SMALL)
    fit([Lesson(layer, plan_for("mse", 9), Rows(torch.empty(9, 5), torch.empty(0)))]).close()  # rows that do not fit


def test_one_lesson_is_driven_to_its_end_or_raises():
    layer = layer_of(SMALL)
    rows = Rows(*rows_for("mse", layer, 9))
    fitted_one = fit_one(Lesson(layer, plan_for("mse", 9), rows))
    assert fitted_one.metrics == run(layer, rows.x, rows.y, plan_for("mse", 9)).fitted.metrics
    with pytest.raises(Diverged):
        fit_one(Lesson(layer, plan_for("mse", 9, optimizer="sgd", lr=1e6, epochs=50), rows))


def until_diverged(layer, x, y, plan):
    """The losses that a run tells before it diverges."""
    ended = run(layer, x, y, plan)
    assert isinstance(ended.outcome, Diverged), ended.losses
    return ended.losses


@pytest.mark.parametrize(("batch_size", "path"), [(None, "batch"), (3, "batch"), (None, "moments")])
def test_a_run_that_diverges_has_told_its_losses_up_to_the_last_finite_one(batch_size, path):
    layer = layer_of(SMALL)
    before = copies(layer)
    x, y = rows_for("mse", layer, 9)
    plan = plan_for("mse", 9, optimizer="sgd", lr=10.0, epochs=50, batch_size=batch_size, path=path)
    told = until_diverged(layer, x, y, plan)
    expected, _ = by_reference(layer, x, y, plan)
    finite = next(i for i, loss in enumerate(expected) if not math.isfinite(loss))
    assert 0 < len(told) <= finite < plan.epochs
    assert all(math.isfinite(loss) for loss in told)
    assert told[0] == near(expected[0])
    assert unchanged(layer, before)


@pytest.mark.parametrize("path", ["batch", "moments"])
def test_an_epoch_whose_loss_is_finite_but_whose_weights_are_not_is_not_told(path):
    loss, size = ("mae", 1e35) if path == "batch" else ("mse", 1e16)
    huge = layer_of(SMALL).adapted({"B": torch.full((4, 2), size)})
    x, y = rows_for(loss, huge, 9)
    assert math.isfinite(loss_of(huge, x, y, loss))
    assert until_diverged(huge, x, y, plan_for(loss, 9, optimizer="sgd", lr=1e6, path=path)) == []


def test_weights_that_are_finite_but_have_no_finite_loss_are_not_returned():
    large = layer_of(SMALL).adapted({"A": torch.full((2, 6), 1e8), "B": torch.full((4, 2), 1e8)})
    x, y = rows_for("mse", large, 9)
    plan = plan_for("mse", 9, optimizer="sgd", lr=1e-10, epochs=1)
    assert until_diverged(large, x, y, plan) == near([loss_of(large, x, y, "mse")])


def test_inputs_too_large_for_float32_diverge_in_the_first_epoch():
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, 9)
    assert until_diverged(layer, x * 1e30, y, plan_for("mse", 9)) == []


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_seed_gives_the_same_losses_bit_for_bit(batch_size, dropout):
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, 30)
    one, other = (run(layer, x, y, plan_for("mse", 30, batch_size=batch_size), dropout) for _ in range(2))
    assert one.losses == other.losses
    assert one.fitted.metrics == other.fitted.metrics
    assert unchanged(one.fitted.layer, copies(other.fitted.layer))


def test_another_seed_gives_another_order():
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, 30)
    one, other = (run(layer, x, y, plan_for("mse", 30, batch_size=4, seed=seed)) for seed in (0, 1))
    assert one.losses != other.losses


def test_a_seed_says_nothing_to_a_full_batch_without_dropout():
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, 30)
    one, other = (run(layer, x, y, plan_for("mse", 30, seed=seed)) for seed in (0, 1))
    assert one.losses == other.losses


def test_another_seed_drops_other_numbers():
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, 30)
    one, other = (run(layer, x, y, plan_for("mse", 30, seed=seed), dropout=0.5) for seed in (0, 1))
    assert one.losses != other.losses


def test_a_plan_whose_seed_is_open_does_not_run():
    layer = layer_of(SMALL)
    with pytest.raises(ValueError, match="not fitted"):
        run(layer, *rows_for("mse", layer, 9), Plan(data=Random(n_samples=9)))
