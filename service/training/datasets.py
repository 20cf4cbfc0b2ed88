"""Where rows come from: each kind of data as inputs x (n, in) and targets y, (n, out) numbers or (n,) classes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from service.lora.activations import activated
from service.lora.chain import Trainable
from service.lora.init import stream
from service.lora.spec import refuse
from service.training import digits
from service.training.rows import Rows
from service.training.sources import Digits, Inline, Random, Source, Stored, Teacher

Tensors = Mapping[str, Tensor]


def random(data: Random, layer: Trainable, tensors: Tensors) -> Rows:
    """Inputs and targets N(0, 1)."""
    draw = stream(drawn(data.seed), "data")
    x = torch.randn(data.n_samples, layer.in_features, generator=draw)
    return Rows(x, torch.randn(data.n_samples, layer.out_features, generator=draw))


def teacher(data: Teacher, layer: Trainable, tensors: Tensors) -> Rows:
    """y = x (W + ΔW)ᵀ + b + noise, where ΔW has rank `teacher_rank` and entries about as large as a fresh W's.

    In a chain each layer has a change of its own.
    """
    rank, change = drawn(data.teacher_rank), stream(drawn(data.seed), "change")
    draw = stream(drawn(data.seed), "held out" if data.held_out else "data")
    x = torch.randn(data.n_samples, layer.in_features, generator=draw)
    y = x
    for place, each in enumerate(layer.layers):
        y = activated(layer.activations[place - 1], y) if place else y
        down = torch.randn(rank, each.in_features, generator=change) / each.in_features**0.5
        up = torch.randn(each.out_features, rank, generator=change) / rank**0.5
        y = (y @ (each.weight.cpu() + up @ down).T).add_(0 if each.bias is None else each.bias.cpu())
    if data.noise:
        y += data.noise * torch.randn(y.shape, generator=draw)
    return Rows(x, y)


def handwritten(data: Digits, layer: Trainable, tensors: Tensors) -> Rows:
    """The digits that come with the package."""
    x, y = digits.load(data.split)
    return Rows(torch.from_numpy(x), torch.from_numpy(y))


def sent(data: Inline | Stored, layer: Trainable, tensors: Tensors) -> Rows:
    """The rows that came with the request, or were uploaded before."""
    weight = tensors.get("weight")
    if weight is not None:  # only their ratios count, and near 1 they are far from the ends of float32
        weight = (weight.double() / weight.double().mean()).float()
    return Rows(tensors["x"], tensors["y"], weight)


DATASETS: dict[str, Callable[[Any, Trainable, Tensors], Rows]] = {
    "random": random,
    "teacher": teacher,
    "digits": handwritten,
    "inline": sent,
    "dataset": sent,
}


def load(data: Source, layer: Trainable, tensors: Tensors) -> Rows:
    """The rows, on the layer's device.

    Numbers are drawn on the CPU whatever the device, so that a seed means the same rows everywhere.
    """
    return DATASETS[data.kind](data, layer, tensors).to(layer.layers[0].weight.device)


def split(rows: Rows, held_out: int, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on, and so many others to validate on, chosen by the seed alone."""
    held, kept = (part.to(rows.x.device) for part in split_of(len(rows), held_out, seed))
    return rows.at(kept), rows.at(held)


def split_of(n: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """The numbers of the rows that are held out, and of the others."""
    order = torch.randperm(n, generator=stream(seed, "validation"))
    return order[:held_out], order[held_out:]


def check_split(weight: Tensor, held_out: int, seed: int) -> None:
    """Raise Validation unless both parts of weighted rows weigh something."""
    for rows, what in zip(split_of(len(weight), held_out, seed), ("held out", "trained on"), strict=True):
        if not float(weight[rows].sum()):
            refuse("validation", f"with seed {seed} the {len(rows)} rows that are {what} have no weight; take another")


def drawn(value: int | None) -> int:
    """The value, which `training.plan.fitted` has settled."""
    if value is None:
        raise ValueError("the plan is not fitted to a model yet: a seed or the teacher's rank is open")
    return value
