"""The layer's maps agree with one another, and with the same layer in plain PyTorch."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from service.lora.init import stream
from service.lora.layer import LoRALinear
from tests.reference import outputs, parts


@st.composite
def layers(draw, use_dora=None):
    """A layer of any small shape with weights of float64, so that identities hold to the last digits."""
    in_features, out_features = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rank = draw(st.integers(1, min(in_features, out_features)))
    numbers = stream(draw(st.integers(0, 10_000)), "test")

    def some(*shape):
        return torch.randn(shape, generator=numbers, dtype=torch.float64)

    bias, own_bias = draw(st.sampled_from([(False, False), (True, False), (True, True)]))
    return LoRALinear(
        some(out_features, in_features),
        some(out_features) if bias else None,
        some(rank, in_features),
        some(out_features, rank),
        scaling=draw(st.floats(0.01, 100)),
        own_bias=some(out_features) if own_bias else None,
        magnitude=some(out_features) if draw(st.booleans() if use_dora is None else st.just(use_dora)) else None,
        frozen_rank=draw(st.integers(0, rank - 1)),
    )


plain = layers(use_dora=False)


def inputs(layer, *leading):
    return torch.randn(*leading, layer.weight.shape[1], generator=stream(1, "x"), dtype=layer.weight.dtype)


def bias_of(layer):
    return layer.bias if layer.own_bias is None else layer.own_bias


close = torch.testing.assert_close


@settings(max_examples=50)
@given(layers(), st.lists(st.integers(0, 4), max_size=3))
def test_a_layer_maps_any_leading_dimensions_as_the_formula_says(layer, leading):
    x = inputs(layer, *leading)
    y = layer(x)
    assert y.shape == (*leading, layer.weight.shape[0])
    if leading:
        close(y, outputs(parts(layer), layer.scaling, x))
    else:
        close(y, outputs(parts(layer), layer.scaling, x[None])[0])


@settings(max_examples=50)
@given(layers())
def test_the_merged_weight_does_the_work_of_both(layer):
    x = inputs(layer, 5)
    close(linear(x, layer.merged(), bias_of(layer)), layer(x))
    close(layer.merged() - layer.weight, layer.delta())


@settings(max_examples=50)
@given(plain)
def test_with_b_zero_only_the_base_is_left(layer):
    x = inputs(layer, 5)
    bare = layer.adapted({"B": torch.zeros_like(layer.B)})
    assert torch.equal(bare(x), linear(x, layer.weight, bias_of(layer)))
    assert torch.equal(bare.merged(), layer.weight)


@settings(max_examples=50)
@given(plain)
def test_the_change_has_the_rank_of_the_adapter(layer):
    assert layer.delta().shape == layer.weight.shape
    assert torch.linalg.matrix_rank(layer.delta()) <= layer.A.shape[0]


@settings(max_examples=50)
@given(layers(), st.floats(0.1, 10))
def test_a_factor_may_sit_in_the_scaling_in_a_or_in_b(layer, factor):
    x = inputs(layer, 3)
    moved = [
        layer.adapted({"scaling": layer.scaling * factor}),
        layer.adapted({"A": layer.A * factor}),
        layer.adapted({"B": layer.B * factor}),
    ]
    for other in moved[1:]:
        close(other(x), moved[0](x))


@settings(max_examples=50)
@given(plain)
def test_the_frozen_part_and_the_adapter_add_up_to_the_output(layer):
    x = inputs(layer, 4)
    trained = layer.trained()
    moving = layer.scaling * linear(linear(x, trained["A"]), trained["B"])
    close(layer.frozen(x) + moving + trained.get("own_bias", 0), layer(x))
    close(layer.frozen_weight(torch.float64) + layer.scaling * trained["B"] @ trained["A"], layer.merged())


@settings(max_examples=50)
@given(layers(), st.floats(-3, 3))
def test_the_frozen_part_does_not_know_the_adapter(layer, factor):
    x = inputs(layer, 4)
    other = layer.learned({name: tensor * factor for name, tensor in layer.trained().items()})
    assert torch.equal(other.frozen(x), layer.frozen(x))
    assert torch.equal(other.frozen_weight(torch.float64), layer.frozen_weight(torch.float64))


@settings(max_examples=25)
@given(layers())
def test_an_own_bias_stands_in_for_the_shared_one(layer):
    x = inputs(layer, 4)
    own = torch.full_like(layer.weight[:, 0], 3.0)
    other = replace(layer, bias=own, own_bias=None)
    close(layer.adapted({"own_bias": own})(x), other(x))


@settings(max_examples=25)
@given(layers())
def test_the_adapter_is_what_training_changes_and_the_ranks_that_it_leaves(layer):
    adapter, trained = layer.adapter(), layer.trained()
    own = {name for name in ("own_bias", "magnitude") if getattr(layer, name) is not None}
    assert set(adapter) == set(trained) == {"A", "B"} | own
    assert all(adapter[name] is getattr(layer, name) for name in adapter)
    assert len(trained["A"]) == layer.rank == len(layer.A) - layer.frozen_rank
    again = layer.learned(trained)
    assert all(torch.equal(again.adapter()[name], tensor) for name, tensor in adapter.items())


@settings(max_examples=50)
@given(layers(use_dora=True))
def test_the_rows_of_a_merged_weight_are_as_long_as_the_magnitudes(layer):
    close(torch.linalg.vector_norm(layer.merged(), dim=1), layer.magnitude.abs())
    turned = torch.nn.functional.cosine_similarity(layer.merged(), layer.direction(), dim=1)
    close(turned, torch.sign(layer.magnitude))


def test_a_row_without_any_length_gives_nothing_rather_than_no_number():
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    layer = LoRALinear(weight, None, torch.ones(1, 2), torch.zeros(2, 1), 1.0, magnitude=torch.tensor([0.0, 10.0]))
    assert layer(torch.tensor([1.0, 1.0])).tolist() == [0.0, 14.0]


@settings(max_examples=25)
@given(layers())
def test_an_adapted_layer_shares_the_base_and_leaves_the_old_one_as_it_was(layer):
    before = {name: tensor.clone() for name, tensor in layer.adapter().items()}
    adapted = layer.adapted({name: tensor + 1 for name, tensor in layer.adapter().items()})
    assert adapted.weight is layer.weight
    assert adapted.bias is layer.bias
    assert adapted.scaling == layer.scaling
    assert all(torch.equal(layer.adapter()[name], tensor) for name, tensor in before.items())


def test_a_layer_never_changes():
    layer = LoRALinear(torch.ones(2, 2), None, torch.ones(1, 2), torch.ones(2, 1), 1.0)
    with pytest.raises(AttributeError):
        layer.A = torch.zeros(1, 2)


def test_a_batch_of_no_rows_is_legal():
    layer = LoRALinear(torch.ones(3, 2), torch.ones(3), torch.ones(1, 2), torch.ones(3, 1), 1.0)
    assert layer(torch.empty(0, 2)).shape == (0, 3)


def test_small_numbers_by_hand():
    layer = LoRALinear(
        weight=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        bias=torch.tensor([10.0, 20.0]),
        A=torch.tensor([[1.0, -1.0]]),
        B=torch.tensor([[2.0], [0.5]]),
        scaling=2.0,
    )
    assert layer(torch.tensor([3.0, 1.0])).tolist() == [23.0, 35.0]
    assert layer.delta().tolist() == [[4.0, -4.0], [1.0, -1.0]]
    assert layer.merged().tolist() == [[5.0, -2.0], [4.0, 3.0]]
