"""A spec counts what PyTorch counts, and refuses what makes no layer."""

import math
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from service.errors import LimitExceeded, NonFinite, Validation
from service.lora import init
from service.lora.spec import ON_THE_BASE, Init, Parameters, Spec


@st.composite
def specs(draw, most=48):
    """Any spec whose layer is small."""
    in_features, out_features = draw(st.integers(1, most)), draw(st.integers(1, most))
    bias = draw(st.booleans())
    return Spec(
        in_features=in_features,
        out_features=out_features,
        rank=draw(st.integers(1, min(in_features, out_features))),
        bias=bias,
        train_bias=bias and draw(st.booleans()),
    )


class Equivalent(nn.Module):
    """The same layer as a user of PyTorch writes it."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.in_features, spec.out_features, bias=spec.bias)
        self.linear.requires_grad_(False)
        if spec.train_bias:
            self.linear.bias.requires_grad_(True)
        self.lora_A = nn.Linear(spec.in_features, spec.rank, bias=False)
        self.lora_B = nn.Linear(spec.rank, spec.out_features, bias=False)
        if spec.use_dora:
            self.lora_magnitude_vector = nn.Parameter(torch.empty(spec.out_features))


@settings(max_examples=50)
@given(specs(), st.booleans(), st.sampled_from(["kaiming", *ON_THE_BASE]))
def test_parameters_are_those_that_pytorch_counts(spec, use_dora, init):
    spec = replace(spec, use_dora=use_dora, init=init)
    numel = {True: 0, False: 0}
    for parameter in Equivalent(spec).parameters():
        numel[parameter.requires_grad] += parameter.numel()
    assert spec.parameters == Parameters(trainable=numel[True], frozen=numel[False])
    assert spec.parameters.total == numel[True] + numel[False]


@settings(max_examples=50)
@given(specs(), st.booleans(), st.sampled_from(["kaiming", *ON_THE_BASE]))
def test_bytes_are_those_of_the_tensors(spec, use_dora, name):
    spec = replace(spec, use_dora=use_dora, init=name)
    frozen = init.frozen(spec, 0)
    layer = init.begun(spec, 0, *frozen)
    own = [*layer.adapter().values(), *([layer.stretch()] if use_dora else [])]
    assert spec.base_bytes == sum(tensor.nbytes for tensor in frozen if tensor is not None)
    assert spec.adapter_bytes == sum(tensor.nbytes for tensor in own)


@pytest.mark.parametrize(
    ("settings", "trainable", "frozen", "total", "percent"),
    [
        ({}, 296, 650, 946, 31.29),
        ({"train_bias": True}, 306, 640, 946, 32.35),
        ({"bias": False}, 296, 640, 936, 31.62),
        ({"rank": 10}, 740, 650, 1_390, 53.24),
    ],
)
def test_the_seed_documents_layer_has_the_parameters_it_printed(settings, trainable, frozen, total, percent):
    counts = Spec(in_features=64, out_features=10, **settings).parameters
    assert (counts.trainable, counts.frozen, counts.total) == (trainable, frozen, total)
    assert counts.trainable_percent == percent


def test_a_spec_needs_only_the_two_sizes():
    spec = Spec(in_features=64, out_features=10)
    assert vars(spec) == {
        "in_features": 64,
        "out_features": 10,
        "rank": 4,
        "alpha": 4.0,
        "use_rslora": False,
        "use_dora": False,
        "init": "kaiming",
        "dropout": 0.0,
        "bias": True,
        "train_bias": False,
    }


@given(st.integers(1, 64), st.booleans())
def test_without_an_alpha_it_is_the_rank(rank, use_rslora):
    spec = Spec(in_features=64, out_features=64, rank=rank, use_rslora=use_rslora)
    assert spec.alpha == rank
    assert isinstance(spec.alpha, float)
    assert spec.scaling == (pytest.approx(math.sqrt(rank)) if use_rslora else 1)


@given(st.integers(1, 64), st.floats(1e-3, 1e6))
def test_scaling_is_alpha_over_the_rank_or_over_its_root(rank, alpha):
    sizes = {"in_features": 64, "out_features": 64, "rank": rank, "alpha": alpha}
    assert Spec(**sizes).scaling == alpha / rank
    assert Spec(**sizes, use_rslora=True).scaling == pytest.approx(alpha * rank**-0.5)


@given(st.integers(1, 16))
def test_rslora_at_rank_one_is_plain_scaling(alpha):
    plain, stabilized = (Spec(in_features=2, out_features=2, rank=1, alpha=alpha, use_rslora=on) for on in (0, 1))
    assert plain.scaling == stabilized.scaling == alpha


@pytest.mark.parametrize(
    ("settings", "kind", "pointer", "detail"),
    [
        ({"rank": 12}, Validation, "/rank", "rank is 12; it is at most min(in_features, out_features) = 10"),
        ({"rank": 0}, Validation, "/rank", "rank is 0; it must be at least 1"),
        ({"rank": 1_025}, LimitExceeded, "/rank", "rank is 1025; it must be at most 1024"),
        ({"in_features": 0}, LimitExceeded, "/in_features", "in_features is 0; it must be at least 1"),
        ({"in_features": 65_537}, LimitExceeded, "/in_features", "in_features is 65537; it must be at most 65536"),
        ({"out_features": 0}, LimitExceeded, "/out_features", "out_features is 0; it must be at least 1"),
        ({"out_features": 65_537}, LimitExceeded, "/out_features", "out_features is 65537; it must be at most 65536"),
        ({"alpha": 0}, Validation, "/alpha", "alpha is 0; it must be above 0"),
        ({"alpha": -1.5}, Validation, "/alpha", "alpha is -1.5; it must be above 0"),
        ({"alpha": 2e6}, LimitExceeded, "/alpha", "alpha is 2000000.0; it must be at most 1000000"),
        ({"alpha": math.nan}, NonFinite, "/alpha", "alpha is nan; it must be a finite number"),
        ({"alpha": math.inf}, NonFinite, "/alpha", "alpha is inf; it must be a finite number"),
        ({"dropout": -0.1}, Validation, "/dropout", "dropout is -0.1; it must be at least 0"),
        ({"dropout": 1.0}, Validation, "/dropout", "dropout is 1.0; it must be below 1"),
        ({"dropout": math.nan}, NonFinite, "/dropout", "dropout is nan; it must be a finite number"),
        (
            {"train_bias": True, "bias": False},
            Validation,
            "/train_bias",
            "train_bias is true; it needs a base that has a bias, and bias is false",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(settings, kind, pointer, detail):
    with pytest.raises(Validation) as refused:
        Spec(**{"in_features": 64, "out_features": 10, **settings})
    assert type(refused.value) is kind
    assert refused.value.detail == detail
    assert [(fault.pointer, fault.detail) for fault in refused.value.faults] == [(pointer, detail)]


@settings(max_examples=50)
@given(st.integers(1, 2_000), st.integers(1, 2_000), st.integers(1, 2_000))
def test_a_rank_is_taken_exactly_when_both_sizes_allow_it(in_features, out_features, rank):
    if rank <= min(in_features, out_features, 1_024):
        assert Spec(in_features=in_features, out_features=out_features, rank=rank).rank == rank
    else:
        with pytest.raises(Validation):
            Spec(in_features=in_features, out_features=out_features, rank=rank)


def test_the_largest_layer_is_a_spec_though_nobody_allocates_it():
    spec = Spec(in_features=65_536, out_features=65_536, rank=1_024, bias=False)
    assert spec.base_bytes == 4 * 2**32


def test_a_spec_never_changes():
    with pytest.raises(AttributeError):
        Spec(in_features=2, out_features=2, rank=1).rank = 2


def test_the_starts_that_may_be_named_are_those_that_exist():
    assert set(get_args(Init)) == set(init.STARTS)
    assert set(init.STARTS) > ON_THE_BASE


def test_a_spec_needs_no_torch():
    check = "import sys, service.lora.spec; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize(("sizes", "rank"), [((64, 10), 4), ((4, 4), 4), ((3, 64), 3), ((64, 2), 2), ((1, 1), 1)])
def test_without_a_rank_it_is_four_or_what_the_sizes_allow(sizes, rank):
    spec = Spec(in_features=sizes[0], out_features=sizes[1])
    assert (spec.rank, spec.alpha) == (rank, rank)
    assert spec == Spec(in_features=sizes[0], out_features=sizes[1], rank=None)


def test_an_orthogonal_start_needs_an_even_rank():
    assert Spec(in_features=6, out_features=6, rank=4, init="orthogonal").scaling == 1
    with pytest.raises(Validation, match="rank is 3; the init orthogonal needs an even one"):
        Spec(in_features=6, out_features=6, rank=3, init="orthogonal")
