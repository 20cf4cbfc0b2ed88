"""Forwards on bare arrays: the layer's own map, merged, and side by side with other adapters."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.lora.grouped import Maps, fetched, grouped, placed
from service.lora.init import stream
from tests.lora.test_layer import inputs, layers


def assert_close(y, expected):
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12 * max(1, np.abs(expected).max(initial=0)))


@st.composite
def families(draw):
    """Layers on one frozen weight whose ranks, scalings and biases differ, each with some rows."""
    first = draw(layers())
    out_features, in_features = first.weight.shape
    numbers = stream(draw(st.integers(0, 10_000)), "test")

    def some(*shape):
        return torch.randn(shape, generator=numbers, dtype=torch.float64)

    def member():
        rank = draw(st.integers(1, min(in_features, out_features)))
        own = some(out_features) if draw(st.booleans()) else None
        return replace(
            first,
            A=some(rank, in_features),
            B=some(out_features, rank),
            own_bias=own,
            magnitude=some(out_features) if draw(st.booleans()) else None,
            scaling=draw(st.sampled_from([1.0, 0.5])),
        )

    return [(member(), draw(st.integers(0, 3))) for _ in range(draw(st.integers(1, 5)))]


@given(layer=layers(), rows=st.integers(0, 5))
def test_the_maps_do_what_the_layer_does_merged_or_not(layer, rows):
    x = inputs(layer, rows)
    expected = layer(x).numpy()
    maps = Maps.of(layer)
    assert_close(maps(x.numpy()), expected)
    assert_close(maps.merged()(x.numpy()), expected)


@given(families())
def test_grouped_equals_one_by_one(family):
    x = inputs(family[0][0], sum(rows for _, rows in family))
    y = grouped(x.numpy(), [(Maps.of(layer), rows) for layer, rows in family])
    parts = torch.split(x, [rows for _, rows in family])
    expected = torch.cat([layer(part) for (layer, _), part in zip(family, parts, strict=True)])
    assert_close(y, expected.numpy())


@given(families())
def test_what_one_member_overflows_stays_its_own(family):
    (first, _), *others = family
    first = replace(first, B=torch.full_like(first.B, float("inf")))
    family = [(first, 1), *others]
    x = inputs(first, sum(rows for _, rows in family))
    with np.errstate(invalid="ignore"):
        y = grouped(x.numpy(), [(Maps.of(layer), rows) for layer, rows in family])
    assert not np.isfinite(y[0]).any()
    assert np.isfinite(y[1:]).all()


@given(layers())
def test_maps_are_views_and_merging_leaves_them_alone(layer):
    maps = Maps.of(layer)
    before = {name: tensor.clone() for name, tensor in layer.adapter().items()}, layer.weight.clone()
    merged = maps.merged()
    assert np.shares_memory(maps.weight, layer.weight.numpy())
    assert np.shares_memory(maps.down, layer.A.numpy())
    assert np.shares_memory(maps.up, layer.B.numpy())
    assert not np.shares_memory(merged.weight, layer.weight.numpy())
    assert torch.equal(layer.weight, before[1])
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in layer.adapter().items())
    assert merged.merged() is merged


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_rows_go_where_the_maps_are_and_come_back(kind):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = placed(x, kind(np.zeros(1, np.float32)))
    assert type(there) is type(kind(x))
    assert fetched(there).tolist() == x.tolist()


@given(layer=layers())
def test_the_same_lines_serve_torch(layer):
    x = inputs(layer, 3)
    maps = Maps.of(layer)
    arrays = ("weight", "bias", "down", "up", "stretch")
    there = {name: getattr(maps, name) for name in arrays if getattr(maps, name) is not None}
    as_torch = replace(maps, **{name: torch.from_numpy(array) for name, array in there.items()})
    assert_close(fetched(as_torch(x)), layer(x).numpy())
    assert_close(fetched(as_torch.merged()(x)), layer(x).numpy())
