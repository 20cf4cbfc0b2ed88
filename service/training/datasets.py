"""Where rows come from: each kind of data as inputs x (n, in) and targets y, (n, out) numbers or (n,) classes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from service.lora.init import stream
from service.lora.layer import LoRALinear
from service.training import digits
from service.training.plan import Data, Digits, Inline, Random, Teacher

Rows = tuple[Tensor, Tensor]


def random(data: Random, layer: LoRALinear, tensors: dict[str, Tensor]) -> Rows:
    """Inputs and targets N(0, 1)."""
    out_features, in_features = layer.weight.shape
    draw = stream(drawn(data.seed), "data")
    x = torch.randn(data.n_samples, in_features, generator=draw)
    return x, torch.randn(data.n_samples, out_features, generator=draw)


def teacher(data: Teacher, layer: LoRALinear, tensors: dict[str, Tensor]) -> Rows:
    """y = x (W + ΔW)ᵀ + b + noise, where ΔW has rank `teacher_rank` and entries about as large as a fresh W's."""
    weight, bias = layer.weight.cpu(), 0 if layer.bias is None else layer.bias.cpu()
    out_features, in_features = weight.shape
    rank = drawn(data.teacher_rank)
    draw = stream(drawn(data.seed), "data")
    x = torch.randn(data.n_samples, in_features, generator=draw)
    down = torch.randn(rank, in_features, generator=draw) / in_features**0.5
    up = torch.randn(out_features, rank, generator=draw) / rank**0.5
    y = (x @ (weight + up @ down).T).add_(bias)
    if data.noise:
        y += data.noise * torch.randn(data.n_samples, out_features, generator=draw)
    return x, y


def handwritten(data: Digits, layer: LoRALinear, tensors: dict[str, Tensor]) -> Rows:
    """The digits that come with the package."""
    x, y = digits.load(data.split)
    return torch.from_numpy(x), torch.from_numpy(y)


def inline(data: Inline, layer: LoRALinear, tensors: dict[str, Tensor]) -> Rows:
    """The rows that came with the request."""
    return tensors["x"], tensors["y"]


DATASETS: dict[str, Callable[[Any, LoRALinear, dict[str, Tensor]], Rows]] = {
    "random": random,
    "teacher": teacher,
    "digits": handwritten,
    "inline": inline,
}


def load(data: Data, layer: LoRALinear, tensors: dict[str, Tensor]) -> Rows:
    """The rows, on the layer's device.

    Numbers are drawn on the CPU whatever the device, so that a seed means the same rows everywhere.
    """
    x, y = DATASETS[data.kind](data, layer, tensors)
    return x.to(layer.weight.device), y.to(layer.weight.device)


def drawn(value: int | None) -> int:
    """The value, which `training.plan.fitted` has settled."""
    if value is None:
        raise ValueError("the plan is not fitted to a model yet: a seed or the teacher's rank is open")
    return value
