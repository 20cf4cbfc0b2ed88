"""Sums of adapters are what the dense formula says, and compressed they are as near as can be."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora import change as changes
from service.lora.change import Change, is_whole
from service.lora.combined import added, compressed, own_bias, stacked
from service.lora.init import stream
from service.lora.layer import LoRALinear

close = torch.testing.assert_close
weights = st.floats(-3, 3)


@st.composite
def members(draw, use_dora=False, most=4):
    """Layers on one base, of any ranks, scalings and frozen halves, and how much each counts."""
    in_features, out_features = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    numbers = stream(draw(st.integers(0, 10_000)), "test")

    def some(*shape):
        return torch.randn(shape, generator=numbers, dtype=torch.float64)

    base = some(out_features, in_features), some(out_features)

    def layer():
        rank = draw(st.integers(1, 2 * min(in_features, out_features)))
        scaling, frozen_rank = draw(st.floats(0.1, 10)), draw(st.integers(0, rank - 1))
        own = some(out_features) if draw(st.booleans()) else None
        magnitude = some(out_features) if use_dora and draw(st.booleans()) else None
        A, B = some(rank, in_features), some(out_features, rank)
        return LoRALinear(*base, A, B, scaling, own, magnitude, frozen_rank)

    return [(layer(), draw(weights)) for _ in range(draw(st.integers(1, most)))]


def dense(of):
    """Σ weight·ΔW, as it is written."""
    return sum(weight * layer.delta() for layer, weight in of)


def parts(of):
    return [Change.of(layer, weight) for layer, weight in of]


@settings(max_examples=50)
@given(members())
def test_stacked_factors_are_the_sum_with_the_ranks_of_all(of):
    total = stacked(parts(of))
    close(total.B @ total.A, dense(of))
    assert len(total.A) == total.B.shape[1] == sum(len(layer.A) for layer, _ in of)


@settings(max_examples=20)
@given(members())
def test_the_scaling_and_the_weight_are_folded_into_a(of):
    total = stacked(parts(of))
    close(total.B, torch.cat([layer.B for layer, _ in of], dim=1))
    close(total.A, torch.cat([weight * layer.scaling * layer.A for layer, weight in of]))


@settings(max_examples=50)
@given(members(use_dora=True))
def test_added_up_whole_it_is_the_same_sum_and_changes_no_member(of):
    each = parts(of)
    before = [part.whole().clone() for part in each]
    close(added(each).whole(), dense(of))
    assert all(torch.equal(part.whole(), was) for part, was in zip(each, before, strict=True))


@settings(max_examples=50)
@given(members(use_dora=True), st.data())
def test_the_error_of_compressing_is_the_tail_of_the_singular_values(of, data):
    total = dense(of)
    whole = any(layer.magnitude is not None for layer, _ in of)
    rank = data.draw(st.integers(1, min(total.shape)))
    kept, error, relative_error = compressed((added if whole else stacked)(parts(of)), rank)
    close(torch.tensor(error), torch.linalg.svdvals(total)[rank:].norm(), check_dtype=False)
    close(torch.tensor(error), (total - kept.whole()).norm(), check_dtype=False, atol=1e-9, rtol=1e-6)
    assert relative_error * float(total.norm()) == pytest.approx(error, abs=1e-9)
    assert len(kept.A) == kept.B.shape[1] <= rank


@settings(max_examples=20)
@given(members(), st.data())
def test_each_factor_takes_the_root_of_the_singular_values_and_of_zero_a_keeps_a_direction(of, data):
    total = stacked(parts(of))
    rank = data.draw(st.integers(1, min(dense(of).shape)))
    kept, _, _ = compressed(total, rank)
    values = total.values()[: len(kept.A)]
    close(kept.B.T @ kept.B, torch.diag(values), atol=1e-8, rtol=1e-6)
    close(kept.A @ kept.A.T, torch.diag(torch.where(values > 0, values, 1.0)), atol=1e-8, rtol=1e-6)


@settings(max_examples=20)
@given(members())
def test_own_biases_add_up_as_changes_of_the_bias(of):
    own = [(layer.own_bias, weight) for layer, weight in of if layer.own_bias is not None]
    bias = of[0][0].bias
    close(own_bias(bias, own), bias + sum(weight * (each - bias) for each, weight in own))


def test_nothing_compressed_is_nothing():
    A, B = torch.randn(3, 8, dtype=torch.float64), torch.zeros(6, 3, dtype=torch.float64)
    kept, error, relative_error = compressed(Change(A, B), 2)
    assert (error, relative_error, float(kept.whole().norm())) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (20, 20)])
def test_a_large_matrix_is_decomposed_by_its_gram_matrix_to_the_same_parts(monkeypatch, shape):
    D = torch.randn(shape, generator=stream(1, "D"), dtype=torch.float64)
    exact = Change(D).svd(), Change(D).values()
    monkeypatch.setattr(changes, "WHOLE_SVD", 10)
    U, values, Vt = Change(D).svd()
    close(values, exact[0][1])
    close(Change(D).values(), exact[1])
    close(U @ torch.diag(values) @ Vt, D)
    close(U.T @ U, torch.eye(20, dtype=torch.float64))
    close(Vt @ Vt.T, torch.eye(20, dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_what_is_no_change_but_for_rounding_has_no_singular_values():
    numbers = stream(1, "W")
    W, A, B = (torch.randn(shape, generator=numbers) for shape in ((40, 50), (3, 50), (40, 3)))
    begun = LoRALinear(W, None, torch.cat([A, A]), torch.cat([B, -B], 1), 0.7, frozen_rank=3)
    lengths = torch.linalg.vector_norm(W, dim=1)
    stretched = LoRALinear(W, None, A, torch.zeros_like(B), 1.0, magnitude=lengths)
    for layer in (begun, stretched):
        assert not Change.of(layer).values().any()
        assert not Change.of(layer).svd()[1].any()
        assert Change.of(replace(layer, B=layer.B + 1e-3)).values().any()


def test_a_sum_is_added_up_whole_where_its_factors_are_no_smaller():
    assert not is_whole(9, 10, 64)
    assert is_whole(10, 10, 64)
    assert not is_whole(2_048, 4_096, 4_096)
    assert is_whole(2_049, 4_096, 4_096)
