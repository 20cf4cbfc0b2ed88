"""Each kind of data is what its name says, and the same for the same seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from service.training import datasets, digits
from service.training.datasets import DATASETS, drawn, split
from service.training.rows import Rows
from service.training.sources import SOURCES, Digits, Inline, Random, Stored, Teacher
from tests.training.making import layer_of

SIZES, SEEDS = st.integers(1, 20), st.integers(0, 2**53 - 1)
LAYER = layer_of(Spec(in_features=64, out_features=10))


def load(data, layer, tensors):
    """The inputs and targets of data without weights."""
    rows = datasets.load(data, layer, tensors)
    assert rows.weight is None
    return rows.x, rows.y


def change_of(layer, x, y):
    """The change of the weight that explains targets best, by least squares; and what it leaves unexplained."""
    without = y - x @ layer.weight.T - (0 if layer.bias is None else layer.bias)
    change = torch.linalg.lstsq(x.double(), without.double()).solution.T
    return change, without - x @ change.T.float()


def test_the_data_that_may_be_named_is_that_which_exists():
    assert set(DATASETS) == set(SOURCES)
    assert all(kind == of.kind for kind, of in SOURCES.items())


@settings(max_examples=40)
@given(st.sampled_from([Random, Teacher]), st.integers(1, 50), SIZES, SIZES, SEEDS, st.booleans())
def test_rows_fit_the_layer_and_are_the_same_for_the_same_seed(kind, n, in_features, out_features, seed, bias):
    layer = layer_of(Spec(in_features=in_features, out_features=out_features, rank=1, bias=bias))
    settled = {"teacher_rank": 1} if kind is Teacher else {}
    data = kind(n_samples=n, seed=seed, **settled)
    x, y = load(data, layer, {})
    assert (x.shape, y.shape) == ((n, in_features), (n, out_features))
    assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
    again = load(data, layer, {})
    assert torch.equal(again[0], x)
    assert torch.equal(again[1], y)
    assert not torch.equal(load(kind(n_samples=n, seed=seed ^ 1, **settled), layer, {})[0], x)


def test_random_rows_are_standard_normal_and_there_is_nothing_to_learn():
    x, y = load(Random(n_samples=20_000, seed=0), LAYER, {})
    for numbers in (x, y):
        assert abs(float(numbers.mean())) < 0.01
        assert float(numbers.std()) == pytest.approx(1, abs=0.01)
        assert float((numbers.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.005)
    between = x.T @ y / len(x)  # correlations of 640 pairs
    assert float(between.abs().max()) < 5 / len(x) ** 0.5


@settings(max_examples=30)
@given(SIZES, SIZES, SEEDS, st.data())
def test_a_teacher_without_noise_is_within_reach_of_an_adapter_of_its_rank(in_features, out_features, seed, data):
    teacher_rank = data.draw(st.integers(1, min(in_features, out_features)))
    train_bias = data.draw(st.booleans())
    layer = layer_of(Spec(in_features=in_features, out_features=out_features, rank=1, train_bias=train_bias), seed)
    x, y = load(Teacher(n_samples=200, teacher_rank=teacher_rank, seed=seed), layer, {})
    change, left = change_of(layer, x, y)
    torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-4)
    U, S, V = torch.linalg.svd(change, full_matrices=False)
    assert float(S[teacher_rank:].sum()) < 1e-4 * float(S[0])
    A, B = V[:teacher_rank].float(), (U * S)[:, :teacher_rank].float()
    reached = LoRALinear(layer.weight, layer.bias, A, B, scaling=1.0)
    torch.testing.assert_close(reached(x), y, rtol=1e-4, atol=1e-4)


def test_a_teacher_has_its_full_rank():
    x, y = load(Teacher(n_samples=500, teacher_rank=3, seed=0), LAYER, {})
    S = torch.linalg.svdvals(change_of(LAYER, x, y)[0])
    assert float(S[2]) > 0.1 * float(S[0])


def test_a_teachers_change_is_about_as_large_as_the_weight_it_changes():
    layer = layer_of(Spec(in_features=100, out_features=80))
    x, y = load(Teacher(n_samples=400, teacher_rank=4, seed=0), layer, {})
    change, _ = change_of(layer, x, y)
    assert 0.5 < float(change.std()) / float(layer.weight.std()) < 3


@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_noise_is_what_is_added_to_a_teachers_targets(noise):
    x, clean = load(Teacher(n_samples=5_000, teacher_rank=2, seed=1), LAYER, {})
    same, noisy = load(Teacher(n_samples=5_000, teacher_rank=2, noise=noise, seed=1), LAYER, {})
    assert torch.equal(x, same)
    added = (noisy - clean) / noise
    assert abs(float(added.mean())) < 0.02
    assert float(added.std()) == pytest.approx(1, abs=0.02)


def test_a_teacher_teaches_a_change_of_the_base_and_leaves_the_base_alone():
    layer = layer_of(Spec(in_features=64, out_features=10, train_bias=True))
    own = layer.adapted({"own_bias": layer.own_bias + 5, "B": layer.B + 1})
    before = layer.weight.clone()
    data = Teacher(n_samples=50, teacher_rank=2, seed=0)
    for one, other in zip(load(data, layer, {}), load(data, own, {}), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_digits_are_the_tables_rows_as_tensors(split):
    x, y = load(Digits(split=split), LAYER, {})
    expected = digits.load(split)
    assert np.array_equal(x.numpy(), expected[0])
    assert np.array_equal(y.numpy(), expected[1])
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert len(x) == Digits(split=split).n_samples


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        Inline(n_samples=2, targets="classes"),
        Stored(id="d", n_samples=2, targets="classes", in_features=64, out_features=None),
    ],
)
def test_rows_that_were_sent_are_those_that_came(data, weighted):
    tensors = {"x": torch.ones(2, 64), "y": torch.tensor([3, 4]), "other": torch.zeros(1)}
    if weighted:
        tensors["weight"] = torch.rand(2)
    loaded = datasets.load(data, LAYER, tensors)
    assert loaded.x is tensors["x"]
    assert loaded.y is tensors["y"]
    if weighted:  # their ratios are what counts
        torch.testing.assert_close(loaded.weight, tensors["weight"] / tensors["weight"].mean())
    else:
        assert loaded.weight is None


@settings(max_examples=30)
@given(st.integers(2, 60), SEEDS, st.booleans(), st.data())
def test_a_split_is_a_partition_of_the_rows_that_the_seed_alone_chooses(n, seed, weighted, data):
    held_out = data.draw(st.integers(1, n - 1))
    number = torch.arange(n)
    rows = Rows(number[:, None].float(), number * 2, number * 3.0 if weighted else None)
    for part, size in zip(split(rows, held_out, seed), (n - held_out, held_out), strict=True):
        assert len(part) == size
        which = part.x[:, 0].long()
        assert torch.equal(part.y, which * 2)
        assert (part.weight is None) == (not weighted)
        assert part.weight is None or torch.equal(part.weight, which * 3.0)
    both = [torch.cat([one.x, other.x]) for one, other in [split(rows, held_out, seed)] * 2]
    assert sorted(both[0][:, 0].tolist()) == number.tolist()
    assert torch.equal(*both)


@pytest.mark.parametrize("data", [Random(), Teacher(seed=1), Teacher(teacher_rank=1)])
def test_rows_of_a_plan_that_is_not_settled_are_refused(data):
    with pytest.raises(ValueError, match="not fitted"):
        load(data, LAYER, {})


def test_a_settled_value_is_taken_though_it_is_zero():
    assert drawn(0) == 0
