"""A layer with a magnitude (DoRA) is trained as PEFT trains it: the norms held still, the bias left alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from service.lora.init import stream
from service.lora.spec import Spec
from service.training.lesson import Lesson
from service.training.plan import EarlyStopping
from service.training.rows import Rows, keep
from tests.training.making import (
    by_reference,
    copies,
    gentle,
    in_double,
    layer_of,
    layers,
    learn,
    loss_of,
    plan_for,
    rows_for,
    run,
    stacked,
    unchanged,
)
from tests.training.test_losses import EVERY_LOSS
from tests.training.test_optimizers import EVERY_SETTING

DORA = Spec(in_features=12, out_features=7, rank=3, init="normal", use_dora=True)
STARTS = pytest.mark.parametrize("start", ["kaiming", "normal", "pissa", "olora"])


def near(losses):
    return pytest.approx(losses, rel=2e-5, abs=1e-6)


def well_posed(losses, layer, x, y, plan):
    """Whether twice the digits give the same losses: a row of the weight that passes by zero turns by rounding."""
    doubled, x = in_double(layer, x)
    exact, _ = by_reference(doubled, x, y.double() if y.is_floating_point() else y, plan)
    return losses == pytest.approx(exact, rel=4e-6, abs=2e-7)


@EVERY_LOSS
@EVERY_SETTING
@settings(max_examples=2)
@given(layer=layers(use_dora=True), n=st.integers(2, 24), seed=st.integers(0, 1_000))
def test_a_run_equals_the_reference_loop(loss, optimizer, chosen, layer, n, seed):
    x, y = rows_for(loss, layer, n, seed)
    for batch_size in (None, max(1, n // 2)):
        plan = plan_for(loss, n, optimizer=optimizer, batch_size=batch_size, seed=seed, epochs=6, **chosen)
        ours = run(layer, x, y, plan)
        losses, trained = by_reference(layer, x, y, plan)
        assume(well_posed(losses, layer, x, y, plan))
        assert ours.losses == near(losses)
        assert ours.fitted.metrics["final_loss"] == near(loss_of(ours.fitted.layer, x, y, loss))
        assert ours.fitted.layer.trained().keys() == trained.keys()
        for name, tensor in ours.fitted.layer.trained().items():
            torch.testing.assert_close(tensor, trained[name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("train_bias", [False, True])
def test_dropout_is_before_both_the_base_and_the_adapter_as_in_peft(train_bias):
    layer = gentle(replace(DORA, train_bias=train_bias))
    x, y = rows_for("mse", layer, 99)
    plan = plan_for("mse", 99, epochs=5, batch_size=33)
    masks = stream(plan.seed, "dropout")
    dropped = [keep((33, 12), 0.3, masks) for _ in range(15)]
    losses, _ = by_reference(layer, x, y, plan, drop=iter_of(dropped))
    assert run(layer, x, y, plan, dropout=0.3).losses == near(losses)


def iter_of(masks):
    """Drop batch by batch."""
    left = iter(masks)
    return lambda rows: rows * next(left)


@STARTS
@pytest.mark.parametrize("train_bias", [False, True])
def test_peft_itself_comes_to_the_same_weights(start, train_bias):
    spec = replace(DORA, init=start, train_bias=train_bias, alpha=5.0)
    layer = layer_of(spec)
    x, y = rows_for("mse", layer, 40)
    base = nn.Linear(12, 7)
    base.load_state_dict({"weight": layer.frozen_weight(), "bias": layer.bias})
    bias = "lora_only" if train_bias else "none"
    config = LoraConfig(target_modules=["0"], r=3, lora_alpha=5.0, use_dora=True, bias=bias)
    model = get_peft_model(nn.Sequential(base), config)
    theirs = model.base_model.model[0]
    own = {
        "A": theirs.lora_A["default"].weight,
        "B": theirs.lora_B["default"].weight,
        "magnitude": theirs.lora_magnitude_vector["default"].weight,
        "own_bias": theirs.base_layer.bias,
    }
    with torch.no_grad():
        for name, tensor in layer.trained().items():
            own[name].copy_(tensor)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    ours = run(layer, x, y, plan_for("mse", 40, epochs=15, lr=0.02))
    assert ours.losses == near(losses)
    for name, tensor in ours.fitted.layer.trained().items():
        torch.testing.assert_close(tensor, own[name].detach(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours.fitted.layer(x), model.eval()(x).detach(), rtol=1e-5, atol=1e-5)


def lessons(count=4, **chosen):
    plans = [plan_for("mse", 20, epochs=8, lr=0.01 * (1 + seed), seed=seed, **chosen) for seed in range(count)]
    each = [gentle(replace(DORA, alpha=1.0 + seed), seed) for seed in range(count)]
    return [
        Lesson(layer, plan, Rows(*rows_for("mse", layer, 20, seed)))
        for seed, (layer, plan) in enumerate(zip(each, plans, strict=True))
    ]


@pytest.mark.parametrize("chosen", [{}, {"batch_size": 6}, {"early_stopping": EarlyStopping(patience=2)}])
def test_side_by_side_they_are_what_they_are_alone(chosen):
    some = lessons(**chosen)
    losses, outcomes = stacked(some)
    for number, lesson in enumerate(some):
        alone = learn(lesson)
        assert losses[number] == alone.losses
        assert unchanged(outcomes[number].layer, copies(alone.fitted.layer))


def test_a_run_that_goes_on_from_a_state_is_the_run_that_never_stopped():
    lesson = lessons(1, batch_size=6)[0]
    whole = learn(lesson, keep=True)
    rest = learn(replace(lesson, state=whole.states[3]))
    assert rest.losses == whole.losses[3:]
    assert unchanged(rest.fitted.layer, copies(whole.fitted.layer))


def test_nobody_knows_the_optimum_of_a_layer_with_a_magnitude():
    layer = layer_of(DORA)
    metrics = run(layer, *rows_for("mse", layer, 20), plan_for("mse", 20)).fitted.metrics
    assert (metrics["optimum_loss"], metrics["gap_closed"]) == (None, None)
    assert "use_dora" in metrics["optimum_unknown"]


def test_training_leaves_the_frozen_ranks_and_the_base_as_they_were():
    layer = layer_of(replace(DORA, init="pissa"))
    before = copies(layer)
    trained = run(layer, *rows_for("mse", layer, 20), plan_for("mse", 20)).fitted.layer
    assert unchanged(layer, before)
    assert torch.equal(trained.A[3:], layer.A[3:])
    assert torch.equal(trained.B[:, 3:], layer.B[:, 3:])
    assert trained.weight is layer.weight
