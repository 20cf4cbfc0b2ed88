"""The frozen layer, A and B begin as PyTorch and PEFT begin them, each from a stream of its own."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from service.lora.init import STARTS, begun, frozen, principal, stream
from service.lora.init import start as start_on
from service.lora.layer import LoRALinear
from service.lora.spec import Spec
from tests.lora.test_spec import specs

SEEDS = st.integers(0, 2**53 - 1)
ROUNDING = 1 + 1e-6


def start(spec, seed):
    """A and B as they begin on a fresh base."""
    return start_on(spec, seed, frozen(spec, seed)[0])


def same(some, others):
    """Whether all tensors are equal, bit for bit."""
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@settings(max_examples=25)
@given(specs(), SEEDS, st.sampled_from(sorted(STARTS)))
def test_one_seed_gives_the_same_tensors_each_time(spec, seed, name):
    rank = 2 if name == "orthogonal" else spec.rank
    spec = Spec(in_features=spec.in_features + 1, out_features=spec.out_features + 1, rank=rank, init=name)
    assert same(frozen(spec, seed), frozen(spec, seed))
    assert same(start(spec, seed), start(spec, seed))


@settings(max_examples=25)
@given(specs(), SEEDS, SEEDS)
def test_another_seed_gives_other_tensors(spec, seed, other):
    if seed != other:
        assert not torch.equal(frozen(spec, seed)[0], frozen(spec, other)[0])
        assert not torch.equal(start(spec, seed)[0], start(spec, other)[0])


@settings(max_examples=25)
@given(specs(), SEEDS)
def test_the_callers_own_random_numbers_are_left_alone(spec, seed):
    before = torch.random.get_rng_state()
    frozen(spec, seed)
    start(spec, seed)
    assert torch.equal(torch.random.get_rng_state(), before)


@settings(max_examples=50)
@given(specs(), SEEDS)
def test_a_new_kaiming_adapter_changes_nothing(spec, seed):
    layer = LoRALinear(*frozen(spec, seed), *start(spec, seed), scaling=spec.scaling)
    x = torch.randn(3, spec.in_features, generator=stream(seed, "test"))
    assert not layer.B.any()
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert torch.equal(layer.merged(), layer.weight)


@settings(max_examples=50)
@given(specs(), SEEDS)
def test_every_tensor_has_the_shape_pytorch_gives_it(spec, seed):
    weight, bias = frozen(spec, seed)
    A, B = start_on(spec, seed, weight)
    linear = nn.Linear(spec.in_features, spec.out_features)
    assert weight.shape == linear.weight.shape
    assert (bias is not None) == spec.bias
    assert bias is None or bias.shape == linear.bias.shape
    assert A.shape == (spec.rank, spec.in_features)
    assert B.shape == (spec.out_features, spec.rank)
    assert {tensor.dtype for tensor in (weight, A, B)} == {torch.float32}


@settings(max_examples=50)
@given(specs(), SEEDS)
def test_kaiming_and_the_frozen_layer_stay_within_one_over_the_root_of_in(spec, seed):
    bound = ROUNDING / math.sqrt(spec.in_features)
    weight, bias = frozen(spec, seed)
    A, _ = start(spec, seed)
    assert all(tensor.abs().max() <= bound for tensor in (weight, A, *([bias] if spec.bias else [])))


def test_a_fresh_base_is_distributed_as_a_linear_layer_of_pytorch():
    spec = Spec(in_features=300, out_features=400)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = nn.Linear(300, 400)
    for ours, theirs in zip(frozen(spec, 0), (linear.weight.detach(), linear.bias.detach()), strict=True):
        assert float(ours.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.02)
        assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.15)
        assert abs(float(ours.mean())) < 5 * float(ours.std()) / math.sqrt(ours.numel())


def test_kaiming_is_distributed_as_pytorchs_kaiming_uniform_with_the_root_of_five():
    A, _ = start(Spec(in_features=300, out_features=400, rank=100), 0)
    theirs = nn.init.kaiming_uniform_(torch.empty(100, 300), a=math.sqrt(5), generator=stream(0, "test"))
    assert float(A.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.01)
    assert float(A.std()) == pytest.approx(float(theirs.std()), rel=0.02)


def test_normal_draws_both_a_and_b_from_the_standard_normal():
    for tensor in start(Spec(in_features=300, out_features=400, rank=100, init="normal"), 0):
        assert float(tensor.std()) == pytest.approx(1, abs=0.02)
        assert abs(float(tensor.mean())) < 0.03
        assert float((tensor.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.01)


def test_gaussian_draws_a_with_the_standard_deviation_of_one_over_the_rank():
    A, B = start(Spec(in_features=3_000, out_features=400, rank=100, init="gaussian"), 0)
    assert not B.any()
    assert float(A.std()) == pytest.approx(1 / 100, rel=0.02)
    assert float((A.abs() < 1 / 100).float().mean()) == pytest.approx(0.6827, abs=0.01)


@settings(max_examples=50)
@given(specs(), SEEDS)
def test_orthogonal_starts_change_nothing_though_neither_is_zero(spec, seed):
    spec = Spec(in_features=spec.in_features + 1, out_features=spec.out_features + 1, rank=2, init="orthogonal")
    A, B = start(spec, seed)
    assert bool(A.any() and B.any())
    assert float((B @ A).abs().max()) <= 1e-6 * float(A.norm() * B.norm())


def test_orthogonal_starts_are_distributed_as_those_of_peft():
    spec = Spec(in_features=300, out_features=400, rank=64, init="orthogonal")
    A, B = start(spec, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(
            nn.Sequential(nn.Linear(300, 400)), LoraConfig(target_modules=["0"], r=64, init_lora_weights="orthogonal")
        )
    theirs = {name: p.detach() for name, p in model.named_parameters() if "lora_" in name}
    for ours, (name, peft) in zip((A, B), sorted(theirs.items()), strict=True):
        assert ours.shape == peft.shape, name
        assert float(ours.std()) == pytest.approx(float(peft.std()), rel=0.05)
        singular = torch.linalg.svdvals(ours)
        assert int((singular > 1e-5).sum()) == 32
        assert float(singular[0]) == pytest.approx(float(torch.linalg.svdvals(peft)[0]), rel=0.1)


ON_THE_BASE = pytest.mark.parametrize("name", ["pissa", "olora"])


def on_the_base(name, **fields):
    spec = Spec(**{"in_features": 30, "out_features": 20, "rank": 4, "init": name, **fields})
    return spec, begun(spec, 5, *frozen(spec, 5))


@ON_THE_BASE
@settings(max_examples=50)
@given(spec=specs(), seed=SEEDS, alpha=st.floats(0.1, 10), use_rslora=st.booleans())
def test_a_start_on_the_base_changes_nothing_and_leaves_the_base_as_it_is(name, spec, seed, alpha, use_rslora):
    spec = replace(spec, init=name, alpha=alpha, use_rslora=use_rslora)
    weight, bias = frozen(spec, seed)
    before = weight.clone()
    layer = begun(spec, seed, weight, bias)
    assert layer.weight is weight
    assert torch.equal(weight, before)
    assert bool(layer.A.any() and layer.B.any())
    assert layer.rank == spec.rank
    assert float(layer.delta().abs().max()) <= 1e-6 * float(weight.abs().max())
    torch.testing.assert_close(
        layer.frozen_weight() + spec.scaling * layer.trained()["B"] @ layer.trained()["A"], weight
    )


@ON_THE_BASE
@pytest.mark.parametrize(("use_rslora", "alpha"), [(False, None), (True, 3.0), (False, 1.5)])
@pytest.mark.parametrize("sizes", [(30, 20), (20, 30)])
def test_starts_on_the_base_are_those_of_peft(name, use_rslora, alpha, sizes):
    spec, ours = on_the_base(name, use_rslora=use_rslora, alpha=alpha, in_features=sizes[0], out_features=sizes[1])
    base = nn.Linear(*sizes)
    base.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    config = LoraConfig(target_modules=["0"], r=4, lora_alpha=spec.alpha, use_rslora=use_rslora, init_lora_weights=name)
    theirs = get_peft_model(nn.Sequential(base), config).base_model.model[0]
    A, B = theirs.lora_A["default"].weight.detach(), theirs.lora_B["default"].weight.detach()
    sign = torch.sign((A * ours.trained()["A"]).sum(1))  # of a singular vector, which nobody can know
    for one, other in ((sign[:, None] * A, ours.trained()["A"]), (B * sign, ours.trained()["B"])):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs.base_layer.weight.detach(), ours.frozen_weight(), rtol=1e-5, atol=1e-6)


def test_pissa_holds_the_best_part_of_the_base_that_its_rank_has_room_for():
    spec, layer = on_the_base("pissa")
    values = torch.linalg.svdvals(layer.weight)
    left = torch.linalg.matrix_norm(layer.frozen_weight())
    assert float(left) == pytest.approx(float(values[spec.rank :].norm()), rel=1e-5)


def test_a_large_base_gives_its_main_directions_without_all_of_them(monkeypatch):
    draw = stream(0, "test")
    U, V = (torch.linalg.qr(torch.randn(120, 60, generator=draw))[0] for _ in range(2))
    weight = U * torch.logspace(0, -3, 60) @ V.T
    whole = principal(weight, 5, draw)
    monkeypatch.setattr("service.lora.init.WHOLE_SVD", 0)
    for one, other in zip(whole, principal(weight, 5, draw), strict=True):
        torch.testing.assert_close(one.abs(), other.abs(), rtol=1e-4, atol=1e-5)


@settings(max_examples=50)
@given(specs(), SEEDS, st.sampled_from([name for name in STARTS if name != "orthogonal"]))
def test_a_new_magnitude_changes_nothing(spec, seed, name):
    dora = replace(spec, init=name, use_dora=True)
    weight, bias = frozen(spec, seed)
    plain, layer = (begun(each, seed, weight, bias) for each in (replace(dora, use_dora=False), dora))
    x = torch.randn(3, spec.in_features, generator=stream(seed, "test"))
    assert layer.magnitude.shape == (spec.out_features,)
    torch.testing.assert_close(layer(x), plain(x))


@settings(max_examples=25)
@given(SEEDS)
def test_a_does_not_repeat_rows_of_the_frozen_weight(seed):
    spec = Spec(in_features=16, out_features=16, rank=4)
    weight, _ = frozen(spec, seed)
    A, _ = start(spec, seed)
    assert int(torch.isin(A, weight).sum()) < 4  # of 64; now and then two of 2²⁴ numbers are the same


def test_the_streams_of_one_seed_are_not_correlated():
    names = ("base", "adapter", "data", "order", "dropout")
    draws = torch.stack([torch.randn(100_000, generator=stream(7, name)) for name in names])
    apart = torch.corrcoef(draws) - torch.eye(len(names))
    assert float(apart.abs().max()) < 0.02


@settings(max_examples=50)
@given(SEEDS, st.text(max_size=10))
def test_a_stream_is_a_function_of_its_seed_and_name(seed, name):
    first, again, other = (stream(seed, text) for text in (name, name, f"{name}'"))
    assert first.initial_seed() == again.initial_seed() != other.initial_seed()
