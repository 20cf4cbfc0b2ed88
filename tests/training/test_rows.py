"""By rows, numpy and torch agree; rows may have weights, orders and masks of their own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.init import stream
from service.training.adapters import Adapters
from service.training.losses import LOSSES
from service.training.rows import ByRows, Draws, Rows, keep
from tests.training.making import SMALL, by_reference, gentle, layers, loss_of, plan_for, rows_for, run
from tests.training.test_optimizers import EVERY_BACKEND, EVERY_SETTING

EVERY_LOSS = pytest.mark.parametrize("loss", sorted(LOSSES))
SEEDS = st.integers(0, 1_000)


def draws(seed):
    return Draws(stream(seed, "order"), stream(seed, "dropout"))


def weights(n, seed=0):
    """Some of them zero."""
    weight = torch.rand(n, generator=stream(seed, "weight"))
    weight[1::5] = 0
    return weight


def finished(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


@EVERY_LOSS
@settings(max_examples=6)
@given(layer=layers(), n=st.integers(1, 20), seed=SEEDS, dropout=st.sampled_from([0.0, 0.3]), data=st.data())
def test_numpy_and_torch_agree_on_losses_and_gradients(loss, layer, n, seed, dropout, data):
    size, shared = data.draw(st.none() | st.integers(1, n)), data.draw(st.booleans())
    weighted = data.draw(st.booleans())
    rows = [Rows(*rows_for(loss, layer, n, seed + run), weights(n) if weighted else None) for run in range(3)]
    rows = [rows[0]] * 3 if shared else rows
    found = []
    for backend in EVERY_BACKEND:
        adapters = Adapters(backend, [layer] * 3, "float32")
        objective = ByRows(adapters, rows, [draws(run) for run in range(3)], loss, size, 5, dropout)
        numbers = []
        for losses in objective.epoch():
            numbers += [backend.tensor(losses, torch.float64), backend.tensor(adapters.gradient, torch.float64)]
        numbers.append(backend.tensor(finished(objective.measure()), torch.float64))
        if objective.accuracy is not None:
            numbers.append(backend.tensor(objective.accuracy, torch.float64))
        found.append(numbers)
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@EVERY_LOSS
@settings(max_examples=2)
@given(layer=layers(), seed=SEEDS)
@pytest.mark.parametrize("batch_size", [None, 7])
def test_weighted_rows_equal_the_weighted_reference_loop(loss, batch_size, layer, seed):
    x, y = rows_for(loss, layer, 23, seed)
    weight = weights(23, seed)
    plan = plan_for(loss, 23, epochs=4, batch_size=batch_size, optimizer="sgd", lr=0.02)
    losses, trained = by_reference(layer, x, y, plan, weight=weight)
    ours = run(layer, x, y, plan, weight=weight)
    assert ours.losses == pytest.approx(losses, rel=1e-4)
    final = loss_of(ours.fitted.layer, x, y, loss, weight)
    assert ours.fitted.metrics["final_loss"] == pytest.approx(final, rel=1e-4)
    for name, tensor in ours.fitted.layer.trained().items():
        torch.testing.assert_close(tensor, trained[name], rtol=1e-3, atol=1e-4)


@EVERY_LOSS
def test_weights_that_are_all_one_change_no_loss(loss):
    layer = gentle(SMALL)
    x, y = rows_for(loss, layer, 23)
    for batch_size in (None, 7):
        plan = plan_for(loss, 23, batch_size=batch_size)
        weighted, plain = run(layer, x, y, plan, weight=torch.ones(23)), run(layer, x, y, plan)
        assert weighted.losses == pytest.approx(plain.losses, rel=1e-5)


def test_a_batch_without_any_weight_teaches_nothing():
    layer = gentle(SMALL)
    x, y = rows_for("mse", layer, 8)
    weight = torch.tensor([1.0] + [0.0] * 7)
    ended = run(layer, x, y, plan_for("mse", 8, batch_size=1, epochs=3, optimizer="sgd"), weight=weight)
    one = run(layer, x[:1], y[:1], plan_for("mse", 1, epochs=3, optimizer="sgd"))
    assert ended.losses == pytest.approx(one.losses, rel=1e-5)


@EVERY_SETTING
def test_the_accuracy_is_the_share_of_rows_whose_largest_output_is_their_class(optimizer, chosen):
    layer = gentle(SMALL)
    x, y = rows_for("cross_entropy", layer, 30)
    held_out = Rows(*rows_for("cross_entropy", layer, 11, 1))
    told = []

    def right(weights, rows):
        bias = weights["bias"] if weights["own_bias"] is None else weights["own_bias"]
        p = rows.x @ weights["weight"].T + bias + layer.scaling * (rows.x @ weights["A"].T) @ weights["B"].T
        return float((p.argmax(1) == rows.y).double().mean())

    plan = plan_for("cross_entropy", 30, epochs=5, optimizer=optimizer, lr=0.1, **chosen)
    by_reference(
        layer, x, y, plan, each_epoch=lambda layer: told.append((right(layer, Rows(x, y)), right(layer, held_out)))
    )
    ours = run(layer, x, y, plan, validation=held_out)
    trained, validated = zip(*told, strict=True)
    # An epoch of one full batch looks at its rows before the update.
    assert ours.curve("accuracies") == pytest.approx([right(vars(layer), Rows(x, y)), *trained[:-1]])
    assert ours.curve("validation_accuracies") == pytest.approx(validated)
    assert ours.fitted.metrics["accuracy"] == pytest.approx(trained[-1])
    assert ours.fitted.metrics["validation_accuracy"] == pytest.approx(validated[-1])


@settings(max_examples=30)
@given(st.integers(1, 60), SEEDS, st.data())
def test_batches_hold_every_row_once_and_only_the_last_is_smaller(n, seed, data):
    size = data.draw(st.integers(1, n))
    layer = gentle(SMALL)
    # Row number i has the error i + 1, and no parameter moves, so that the losses tell which rows a batch held.
    x = torch.zeros(n, 6)
    y = layer(x) - torch.arange(1, n + 1)[:, None]
    objective = ByRows(Adapters(EVERY_BACKEND[0], [layer], "float32"), [Rows(x, y)], [draws(seed)], "mae", size, 100)
    sums = [float(losses[0]) * n for losses in objective.epoch()]
    order = torch.randperm(n, generator=stream(seed, "order")) + 1
    assert sums == pytest.approx([float(part.sum()) for part in order.split(size)], rel=1e-4)
    assert objective.steps == len(sums) == -(-n // size)


def test_every_epoch_has_an_order_of_its_own():
    layer = gentle(SMALL)
    rows = Rows(*rows_for("mse", layer, 50))
    objective = ByRows(Adapters(EVERY_BACKEND[0], [layer], "float32"), [rows], [draws(0)], "mse", 8, 100)
    first, second = (np.stack(list(objective.epoch())) for _ in range(2))
    assert not np.allclose(first, second)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_keeps_the_mean(p):
    x = torch.full((1_000, 200), 3.0)
    dropped = x * keep(x.shape, p, stream(0, "dropout"))
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 3 / (1 - p)))
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(float(kept.float().mean()) - (1 - p)) < 5 * deviation
    assert float(dropped.mean()) == pytest.approx(3, abs=15 * deviation / (1 - p))
