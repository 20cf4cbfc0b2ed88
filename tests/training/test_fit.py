"""A run equals the seed document's loop step for step, and leaves the layer it was given alone."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.init import stream
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.training import datasets, digits
from service.training.fit import Diverged, batches, drop, fit
from service.training.losses import LOSSES
from service.training.plan import Digits, Inline, Plan, Random, Teacher, fitted
from tests.training.making import by_reference, copies, layer_of, loss_of, rows_for, run, unchanged
from tests.training.test_optimizers import EVERY_SETTING

EVERY_LOSS = pytest.mark.parametrize("loss", sorted(LOSSES))
SMALL = Spec(in_features=6, out_features=4, rank=2, init="normal")


def near(losses):
    return pytest.approx(losses, rel=1e-5)


def plan_for(loss, n, **chosen):
    """A settled plan for n rows of a test's own."""
    targets = {"cross_entropy": "classes", "bce_with_logits": "probabilities"}.get(loss, "numbers")
    return Plan(**{"seed": 0, "loss": loss, "data": Inline(n_samples=n, targets=targets), **chosen})


def gentle(spec, seed=0):
    """A layer whose A and B are normal, of a size that gives outputs of about 1.

    Where a loss saturates, gradients are nothing but rounding, and Adam makes whole steps of them.
    """
    layer = layer_of(spec, seed)
    B = layer.B / (layer.scaling * spec.rank**0.5)
    return layer.adapted({"A": layer.A / spec.in_features**0.5, "B": B})


@st.composite
def layers(draw):
    """Any small layer; with two outputs at least, or a cosine could not turn."""
    in_features, out_features = draw(st.integers(1, 12)), draw(st.integers(2, 8))
    bias = draw(st.booleans())
    spec = Spec(
        in_features=in_features,
        out_features=out_features,
        rank=draw(st.integers(1, min(in_features, out_features))),
        alpha=draw(st.none() | st.floats(0.1, 10)),
        use_rslora=draw(st.booleans()),
        init="normal",
        bias=bias,
        train_bias=bias and draw(st.booleans()),
    )
    return gentle(spec, draw(st.integers(0, 1_000)))


@st.composite
def sizes(draw):
    """An odd number of rows in odd batches: where mae's ±1 are even in number they could add up to zero."""
    size = draw(st.sampled_from([3, 5, 7]))
    rest = draw(st.sampled_from([0, 1, size - 2]))
    return size * draw(st.sampled_from([2, 4] if rest else [1, 3])) + rest, size


def test_the_ten_default_losses_are_those_of_the_seed_document():
    layer = layer_of(Spec(in_features=64, out_features=10, init="normal"), 42)
    plan = fitted(Plan(), Spec(in_features=64, out_features=10), 42, 2**30)
    x, y = datasets.load(plan.data, layer, {})
    ours = run(layer, x, y, plan)
    losses, trained = by_reference(layer, x, y, plan)
    assert len(losses) == 10
    assert x.shape == (1_000, 64)
    assert ours.losses == near(losses)
    assert ours.losses[0] == near(loss_of(layer, x, y, "mse"))
    for name, tensor in ours.fitted.layer.adapter().items():
        torch.testing.assert_close(tensor, trained[name], rtol=1e-4, atol=1e-5)


def test_the_default_run_of_a_default_layer_is_the_seed_documents_too():
    layer = layer_of(Spec(in_features=64, out_features=10), 1)
    plan = fitted(Plan(), Spec(in_features=64, out_features=10), 1, 2**30)
    x, y = datasets.load(plan.data, layer, {})
    assert run(layer, x, y, plan).losses == near(by_reference(layer, x, y, plan)[0])


@EVERY_LOSS
@EVERY_SETTING
@settings(deadline=None, max_examples=4)
@given(layer=layers(), size=sizes(), seed=st.integers(0, 1_000))
def test_a_run_equals_the_reference_loop(loss, optimizer, chosen, layer, size, seed):
    n, batch_size = size
    x, y = rows_for(loss, layer, n, seed)
    for rows_a_step in (None, batch_size):
        plan = plan_for(loss, n, optimizer=optimizer, batch_size=rows_a_step, seed=seed, epochs=6, **chosen)
        ours = run(layer, x, y, plan)
        losses, trained = by_reference(layer, x, y, plan)
        assert ours.losses == near(losses)
        assert ours.fitted.loss == near(loss_of(ours.fitted.layer, x, y, loss))
        assert ours.fitted.layer.adapter().keys() == trained.keys()
        for name, tensor in ours.fitted.layer.adapter().items():
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
    losses, _ = by_reference(layer, x, y, plan, drop=lambda rows: drop(rows, 0.3, masks))
    assert run(layer, x, y, plan, dropout=0.3).losses == near(losses)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@EVERY_LOSS
def test_the_final_loss_is_that_of_the_trained_weights_over_all_rows(loss, dropout):
    layer = layer_of(SMALL)
    x, y = rows_for(loss, layer, 25)
    ended = run(layer, x, y, plan_for(loss, 25, batch_size=7), dropout).fitted
    assert ended.loss == near(loss_of(ended.layer, x, y, loss))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.integers(1, 5), st.data())
def test_a_run_yields_none_for_each_batch_and_one_loss_for_each_epoch(n, epochs, data):
    size = data.draw(st.none() | st.integers(1, n))
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, n)
    ended = run(layer, x, y, plan_for("mse", n, epochs=epochs, batch_size=size))
    steps = 1 if size is None else math.ceil(n / size)
    assert [loss is None for loss in ended.yields] == ([True] * steps + [False]) * epochs + [True]
    assert all(math.isfinite(loss) for loss in ended.losses)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 100), st.data(), st.integers(0, 1_000))
def test_batches_hold_every_row_once_and_only_the_last_is_smaller(n, data, seed):
    size = data.draw(st.integers(1, n))
    parts = list(batches(n, size, stream(seed, "order")))
    assert sorted(torch.cat(parts).tolist()) == list(range(n))
    assert [len(part) for part in parts] == [size] * (n // size) + ([n % size] if n % size else [])


def test_every_epoch_has_an_order_of_its_own():
    order = stream(0, "order")
    first, second = (torch.cat(list(batches(50, 8, order))) for _ in range(2))
    assert not torch.equal(first, second)


def test_an_epochs_loss_is_measured_before_each_update():
    layer = layer_of(SMALL)
    x, y = rows_for("mse", layer, 30)
    still = plan_for("mse", 30, batch_size=7, lr=1e-30, optimizer="sgd", epochs=2)
    assert run(layer, x, y, still).losses == near([loss_of(layer, x, y, "mse")] * 2)


@settings(deadline=None, max_examples=25)
@given(layers(), sizes())
def test_the_given_layer_and_its_rows_stay_bit_for_bit(layer, size):
    n, batch_size = size
    x, y = rows_for("mse", layer, n)
    before, rows = copies(layer), (x.clone(), y.clone())
    run(layer, x, y, plan_for("mse", n, batch_size=batch_size), dropout=0.2)
    assert unchanged(layer, before)
    assert torch.equal(x, rows[0])
    assert torch.equal(y, rows[1])


@settings(deadline=None, max_examples=25)
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
    x, y = rows_for("mse", layer, 9)
    steps = fit(layer, x, y, plan_for("mse", 9, batch_size=3))
    assert [next(steps) for _ in range(2)] == [None, None]
    steps.close()
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value is None
    assert unchanged(layer, before)


def test_nothing_happens_before_the_first_step_is_asked_for():
    layer = layer_of(SMALL)
    steps = fit(layer, torch.empty(9, 5), torch.empty(0), plan_for("mse", 9))  # rows that do not fit at all
    steps.close()


def until_diverged(layer, x, y, plan):
    """The losses that a run yields before it diverges."""
    losses = []
    try:
        for loss in fit(layer, x, y, plan):
            if loss is not None:
                losses.append(loss)
    except Diverged:
        return losses
    raise AssertionError(f"the run did not diverge: {losses}")


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_run_that_diverges_has_told_its_losses_up_to_the_last_finite_one(batch_size):
    layer = layer_of(SMALL)
    before = copies(layer)
    x, y = rows_for("mse", layer, 9)
    plan = plan_for("mse", 9, optimizer="sgd", lr=10.0, epochs=50, batch_size=batch_size)
    told = until_diverged(layer, x, y, plan)
    expected, _ = by_reference(layer, x, y, plan)
    finite = next(i for i, loss in enumerate(expected) if not math.isfinite(loss))
    assert 0 < len(told) <= finite < plan.epochs
    assert all(math.isfinite(loss) for loss in told)
    assert told[0] == near(expected[0])
    assert unchanged(layer, before)


def test_an_epoch_whose_loss_is_finite_but_whose_weights_are_not_is_not_told():
    huge = layer_of(SMALL).adapted({"B": torch.full((4, 2), 1e35)})
    x, y = rows_for("mae", huge, 9)
    assert math.isfinite(loss_of(huge, x, y, "mae"))
    assert until_diverged(huge, x, y, plan_for("mae", 9, optimizer="sgd", lr=1e6)) == []


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
    assert one.fitted.loss == other.fitted.loss
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


def test_without_dropout_inputs_pass_as_they_are():
    x = torch.ones(3, 4)
    masks = stream(0, "dropout")
    before = masks.get_state()
    assert drop(x, 0.0, masks) is x
    assert torch.equal(masks.get_state(), before)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_keeps_the_mean(p):
    x = torch.full((1_000, 200), 3.0)
    dropped = drop(x, p, stream(0, "dropout"))
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 3 / (1 - p)))
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(float(kept.float().mean()) - (1 - p)) < 5 * deviation
    assert float(dropped.mean()) == pytest.approx(3, abs=15 * deviation / (1 - p))
    assert (x == 3).all()


def test_a_teacher_within_reach_is_learned():
    spec = Spec(in_features=16, out_features=8, rank=3)
    layer = layer_of(spec)
    plan = fitted(Plan(epochs=1_000, data=Teacher(n_samples=200, teacher_rank=2)), spec, 0, 2**30)
    ended = run(layer, *datasets.load(plan.data, layer, {}), plan)
    assert ended.fitted.loss < 1e-4 * ended.losses[0]


def read_digits(rank):
    """The share of the held-out digits that an adapter reads, trained as `lora demo` trains it."""
    spec = Spec(in_features=64, out_features=10, rank=rank)
    plan = Plan(epochs=30, batch_size=64, optimizer="adam", lr=0.01, loss="cross_entropy", data=Digits(), seed=0)
    layer = layer_of(spec)
    trained = run(layer, *datasets.load(plan.data, layer, {}), fitted(plan, spec, 0, 2**30)).fitted.layer
    x, y = (torch.from_numpy(array) for array in digits.load("test"))
    return float((trained(x).argmax(1) == y).float().mean())


def test_an_adapter_of_rank_four_learns_to_read():
    assert read_digits(4) > 0.85


def test_more_rank_reads_more_digits():
    assert read_digits(8) > read_digits(1)


def test_a_layer_of_zeros_can_be_trained():
    """What a worker does to warm up."""
    layer = LoRALinear(torch.zeros(2, 2), None, torch.zeros(1, 2), torch.zeros(2, 1), scaling=1.0)
    plan = Plan(epochs=1, batch_size=1, seed=0)
    assert run(layer, torch.zeros(2, 2), torch.zeros(2, 2), plan).losses == [0.0]


MEASURE = """
import sys, torch
from service.lora.init import frozen, start
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.training import datasets
from service.training.fit import fit
from service.training.plan import bytes_needed, fitted
from tests.memory import peak_growth
from tests.training.test_fit import GREEDY

torch.set_num_threads(1)
spec, plan = GREEDY[sys.argv[1]]
plan = fitted(plan, spec, 0, 2**40)
A, B = start(spec, 0)
layer = LoRALinear(*frozen(spec, 0), A, B, spec.scaling)
small = LoRALinear(torch.zeros(2, 2), None, torch.zeros(1, 2), torch.zeros(2, 1), 1.0)
x = torch.zeros(2, 2)
for _ in fit(small, x, x, plan):  # what torch sets up on first use is no part of a job
    break
grown = peak_growth()
for number, _ in enumerate(fit(layer, *datasets.load(plan.data, layer, {}), plan, spec.dropout)):
    if number == 5:
        break
print(grown(), bytes_needed(plan, spec))
"""
GREEDY = {
    "a teacher of many rows": (Spec(in_features=1, out_features=64, rank=1), Plan(data=Teacher(n_samples=500_000))),
    "a teacher of a large layer": (Spec(in_features=3_000, out_features=3_000), Plan(data=Teacher(n_samples=8))),
    "a high rank": (Spec(in_features=4_000, out_features=4_000, rank=1_000), Plan(data=Random(n_samples=8))),
    "many small batches": (
        Spec(in_features=1, out_features=1, rank=1),
        Plan(data=Random(n_samples=2**21), batch_size=1),
    ),
    "one full batch": (Spec(in_features=64, out_features=64), Plan(data=Random(n_samples=200_000), loss="cosine")),
    "dropout": (Spec(in_features=256, out_features=8, dropout=0.5), Plan(data=Random(n_samples=100_000))),
}


@pytest.mark.parametrize("name", GREEDY)
def test_a_run_takes_no_more_memory_than_its_plan_says(name):
    said = subprocess.check_output([sys.executable, "-c", MEASURE, name], text=True, cwd=Path(__file__).parents[2])
    taken, needed = map(int, said.split())
    assert taken <= needed + 2**23  # what the allocator keeps
