"""A run equals the seed document's loop step for step, and leaves the layer it was given alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.init import stream
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.training import datasets, digits
from service.training.fitted import fitted
from service.training.losses import LOSSES
from service.training.plan import Plan
from service.training.rows import keep
from service.training.sources import Digits, Random, Teacher
from tests.training.making import (
    SMALL,
    by_reference,
    gentle,
    layer_of,
    layers,
    loss_of,
    plan_for,
    rows_for,
    run,
)
from tests.training.test_optimizers import EVERY_SETTING

EVERY_LOSS = pytest.mark.parametrize("loss", sorted(LOSSES))


def rows_of(plan, layer):
    rows = datasets.load(plan.data, layer, {})
    return rows.x, rows.y


def near(losses):
    return pytest.approx(losses, rel=1e-5)


@st.composite
def sizes(draw):
    """An odd number of rows in odd batches: where mae's ±1 are even in number they could add up to zero."""
    size = draw(st.sampled_from([3, 5, 7]))
    rest = draw(st.sampled_from([0, 1, size - 2]))
    return size * draw(st.sampled_from([2, 4] if rest else [1, 3])) + rest, size


def test_the_ten_default_losses_are_those_of_the_seed_document():
    layer = layer_of(Spec(in_features=64, out_features=10, init="normal"), 42)
    plan = fitted(Plan(), Spec(in_features=64, out_features=10), 42, 2**30)
    x, y = rows_of(plan, layer)
    ours = run(layer, x, y, plan)
    losses, trained = by_reference(layer, x, y, plan)
    assert len(losses) == 10
    assert x.shape == (1_000, 64)
    assert ours.losses == near(losses)
    assert ours.losses[0] == near(loss_of(layer, x, y, "mse"))
    for name, tensor in ours.fitted.layer.trained().items():
        torch.testing.assert_close(tensor, trained[name], rtol=1e-4, atol=1e-5)


def test_the_default_run_of_a_default_layer_is_the_seed_documents_too():
    layer = layer_of(Spec(in_features=64, out_features=10), 1)
    plan = fitted(Plan(), Spec(in_features=64, out_features=10), 1, 2**30)
    x, y = rows_of(plan, layer)
    assert run(layer, x, y, plan).losses == near(by_reference(layer, x, y, plan)[0])


@EVERY_LOSS
@EVERY_SETTING
@settings(max_examples=2)
@given(layer=layers(), size=sizes(), seed=st.integers(0, 1_000))
def test_a_run_equals_the_reference_loop(loss, optimizer, chosen, layer, size, seed):
    n, batch_size = size
    x, y = rows_for(loss, layer, n, seed)
    for rows_a_step in (None, batch_size):
        plan = plan_for(loss, n, optimizer=optimizer, batch_size=rows_a_step, seed=seed, epochs=6, **chosen)
        ours = run(layer, x, y, plan)
        losses, trained = by_reference(layer, x, y, plan)
        assert ours.losses == near(losses)
        assert ours.fitted.metrics["final_loss"] == near(loss_of(ours.fitted.layer, x, y, loss))
        assert ours.fitted.layer.trained().keys() == trained.keys()
        for name, tensor in ours.fitted.layer.trained().items():
            torch.testing.assert_close(tensor, trained[name], rtol=1e-4, atol=1e-4)


@EVERY_LOSS
def test_a_longer_run_in_minibatches_equals_the_reference_loop(loss):
    layer = gentle(Spec(in_features=20, out_features=6, rank=3, init="normal", train_bias=True, use_rslora=True))
    x, y = rows_for(loss, layer, 333)
    plan = plan_for(loss, 333, epochs=20, batch_size=51, lr=0.005)
    assert run(layer, x, y, plan).losses == near(by_reference(layer, x, y, plan)[0])


@EVERY_LOSS
def test_dropout_equals_the_reference_loop_with_the_same_masks(loss):
    layer = gentle(Spec(in_features=20, out_features=6, rank=3, init="normal", train_bias=True))
    x, y = rows_for(loss, layer, 99)
    plan = plan_for(loss, 99, epochs=5, batch_size=33)
    masks = stream(plan.seed, "dropout")
    losses, _ = by_reference(layer, x, y, plan, drop=lambda rows: rows * keep(rows.shape, 0.3, masks))
    assert run(layer, x, y, plan, dropout=0.3).losses == near(losses)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@EVERY_LOSS
def test_the_final_loss_is_that_of_the_trained_weights_over_all_rows(loss, dropout):
    layer = layer_of(SMALL)
    x, y = rows_for(loss, layer, 25)
    ended = run(layer, x, y, plan_for(loss, 25, batch_size=7), dropout).fitted
    assert ended.metrics["final_loss"] == near(loss_of(ended.layer, x, y, loss))


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 5), st.data())
def test_a_run_yields_none_for_each_batch_an_epoch_after_the_last_and_its_end(n, epochs, data):
    size = data.draw(st.none() | st.integers(1, n))
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, n)
    ended = run(layer, x, y, plan_for("mse", n, epochs=epochs, batch_size=size))
    steps = 1 if size is None else math.ceil(n / size)
    one = ["NoneType"] * steps + ["Epochs"]
    assert [type(told).__name__ for told in ended.told][: (steps + 1) * epochs] == one * epochs
    rest = [type(told).__name__ for told in ended.told][(steps + 1) * epochs :]
    assert set(rest[:-1]) == {"NoneType"}
    assert rest[-1] == "Ended"
    assert all(math.isfinite(loss) for loss in ended.losses)


def test_an_epochs_loss_is_measured_before_each_update():
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, 30)
    still = plan_for("mse", 30, batch_size=7, lr=1e-30, optimizer="sgd", epochs=2)
    assert run(layer, x, y, still).losses == near([loss_of(layer, x, y, "mse")] * 2)


def test_a_teacher_within_reach_is_learned():
    spec = Spec(in_features=16, out_features=8, rank=3)
    layer = layer_of(spec)
    plan = fitted(Plan(epochs=1_000, data=Teacher(n_samples=200, teacher_rank=2)), spec, 0, 2**30)
    ended = run(layer, *rows_of(plan, layer), plan)
    assert ended.fitted.metrics["final_loss"] < 1e-4 * ended.losses[0]


def read_digits(rank):
    """The share of the held-out digits that an adapter reads, trained as `lora demo` trains it."""
    spec = Spec(in_features=64, out_features=10, rank=rank)
    plan = Plan(epochs=30, batch_size=64, optimizer="adam", lr=0.01, loss="cross_entropy", data=Digits(), seed=0)
    layer = layer_of(spec)
    trained = run(layer, *rows_of(plan, layer), fitted(plan, spec, 0, 2**30)).fitted.layer
    x, y = (torch.from_numpy(array) for array in digits.load("test"))
    return float((trained(x).argmax(1) == y).float().mean())


def test_an_adapter_of_rank_four_learns_to_read():
    assert read_digits(4) > 0.85


def test_more_rank_reads_more_digits():
    assert read_digits(8) > read_digits(1)


def test_a_layer_of_zeros_can_be_trained():
    """What a worker does to warm up."""
    layer = LoRALinear(torch.zeros(2, 2), None, torch.zeros(1, 2), torch.zeros(2, 1), scaling=1.0)
    plan = Plan(epochs=1, batch_size=1, seed=0, data=Random(n_samples=2))
    assert run(layer, torch.zeros(2, 2), torch.zeros(2, 2), plan).losses == [0.0]
