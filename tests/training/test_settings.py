"""What a run may be told beside its optimizer: rows to validate on, clipped gradients, a rate of its own for B."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.training.datasets import split
from service.training.losses import LOSSES
from service.training.plan import Plan
from service.training.rows import Rows
from service.training.sources import Inline
from tests import reference
from tests.training.making import by_reference, layers, plan_for, rows_for, run
from tests.training.test_optimizers import EVERY_SETTING

EVERY_LOSS = pytest.mark.parametrize("loss", sorted(LOSSES))
MODES = pytest.mark.parametrize("mode", [{"path": "moments"}, {}, {"batch_size": 7}])
SEEDS = st.integers(0, 1_000)


def validated(layer, rows, held_out, plan):
    """The losses of each epoch, and those of the held out rows after it, by the reference loop."""
    told = []

    def look(weights):
        p = reference.outputs(weights, layer.scaling, held_out.x)
        told.append(float(reference.mean_loss(plan.loss, p, held_out.y, held_out.weight)))

    losses, _ = by_reference(layer, rows.x, rows.y, plan, each_epoch=look)
    return losses, told


def must_validate(layer, rows, held_out, plan):
    ours = run(layer, rows.x, rows.y, plan, validation=held_out)
    losses, told = validated(layer, rows, held_out, plan)
    assert ours.losses == pytest.approx(losses, rel=1e-4)
    assert ours.curve("validation_losses") == pytest.approx(told, rel=1e-4)
    assert ours.fitted.metrics["validation_loss"] == pytest.approx(told[-1], rel=1e-4)
    without = run(layer, rows.x, rows.y, plan)
    assert without.losses == ours.losses
    assert "validation_loss" not in without.fitted.metrics


@EVERY_LOSS
@pytest.mark.parametrize("batch_size", [None, 7])
@settings(max_examples=2)
@given(layer=layers(), seed=SEEDS, weighted=st.booleans())
def test_data_of_its_own_is_validated_on_after_every_epoch(loss, batch_size, layer, seed, weighted):
    rows = Rows(*rows_for(loss, layer, 23, seed))
    weight = torch.rand(11, generator=torch.Generator().manual_seed(seed)) + 0.1 if weighted else None
    held_out = Rows(*rows_for(loss, layer, 11, seed + 1), weight)
    must_validate(layer, rows, held_out, plan_for(loss, 23, epochs=5, batch_size=batch_size, lr=0.003))


@settings(max_examples=8)
@given(layer=layers(), seed=SEEDS, weighted=st.booleans())
def test_moments_validate_as_rows_do(layer, seed, weighted):
    rows = Rows(*rows_for("mse", layer, 23, seed))
    weight = torch.rand(11, generator=torch.Generator().manual_seed(seed)) + 0.1 if weighted else None
    held_out = Rows(*rows_for("mse", layer, 11, seed + 1), weight)
    must_validate(layer, rows, held_out, plan_for("mse", 23, epochs=5, path="moments"))


@MODES
@settings(max_examples=4)
@given(layer=layers(), seed=SEEDS, share=st.floats(0.1, 0.9))
def test_a_share_that_is_held_out_is_validated_on_and_not_trained_on(mode, layer, seed, share):
    plan = Plan(seed=seed, epochs=4, data=Inline(n_samples=40, targets="numbers"), validation=share)
    all_rows = Rows(*rows_for("mse", layer, 40, seed))
    rows, held_out = split(all_rows, plan.n_validation, seed)
    assert (len(rows), len(held_out)) == (plan.n_train, plan.n_validation)
    size = min(len(rows), mode["batch_size"]) if "batch_size" in mode else None
    must_validate(
        layer, rows, held_out, plan_for("mse", len(rows), epochs=4, seed=seed, **{**mode, "batch_size": size})
    )


@MODES
@EVERY_SETTING
@settings(max_examples=2)
@given(layer=layers(), seed=SEEDS, most=st.sampled_from([1e-3, 0.1, 1.0, 1e3]))
def test_gradients_are_clipped_as_pytorch_clips_them(mode, optimizer, chosen, layer, seed, most):
    x, y = rows_for("mse", layer, 21, seed)
    plan = plan_for("mse", 21, epochs=6, optimizer=optimizer, max_grad_norm=most, **mode, **chosen)
    ours = run(layer, x, y, plan)
    losses, trained = by_reference(layer, x, y, plan)
    assert ours.losses == pytest.approx(losses, rel=1e-4)
    for name, tensor in ours.fitted.layer.trained().items():
        torch.testing.assert_close(tensor, trained[name], rtol=1e-3, atol=1e-4)


@MODES
@EVERY_SETTING
@settings(max_examples=2)
@given(layer=layers(), seed=SEEDS, ratio=st.sampled_from([0.25, 4.0, 16.0]))
def test_b_and_the_bias_may_have_a_rate_of_their_own(mode, optimizer, chosen, layer, seed, ratio):
    x, y = rows_for("mse", layer, 21, seed)
    plan = plan_for("mse", 21, epochs=6, optimizer=optimizer, lr_b_ratio=ratio, lr=0.002, **mode, **chosen)
    ours = run(layer, x, y, plan)
    losses, trained = by_reference(layer, x, y, plan)
    assert ours.losses == pytest.approx(losses, rel=1e-4)
    for name, tensor in ours.fitted.layer.trained().items():
        torch.testing.assert_close(tensor, trained[name], rtol=1e-3, atol=1e-4)
