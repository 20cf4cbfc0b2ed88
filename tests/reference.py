"""The seed document's training loop in plain PyTorch, with autograd and torch.optim: what every run must equal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from service.lora.init import stream

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": nn.MSELoss(),
    "mae": nn.L1Loss(),
    "huber": nn.HuberLoss(delta=1.0),
    "cross_entropy": nn.CrossEntropyLoss(),
    "bce_with_logits": nn.BCEWithLogitsLoss(),
    "cosine": lambda p, t: 1 - nn.CosineSimilarity(dim=1)(p, t).mean(),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
TRAINED = ("A", "B", "own_bias", "magnitude")
GIVEN = ("weight", "bias", "A_frozen", "B_frozen")


def train(
    weights: Mapping[str, Tensor | None],
    scaling: float,
    x: Tensor,
    y: Tensor,
    *,
    loss: str,
    optimizer: str,
    epochs: int,
    lr: float,
    batches: Sequence[Iterable[Tensor]] | None = None,
    drop: Callable[[Tensor], Tensor] | None = None,
    weight: Tensor | None = None,
    factors: Sequence[float] | None = None,
    lr_b_ratio: float = 1.0,
    max_grad_norm: float | None = None,
    each_epoch: Callable[[Mapping[str, Tensor | None]], None] = lambda layer: None,
    **settings: Any,
) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of each epoch, and the trained tensors by name; the given tensors stay as they are.

    Args:
        weights: weight (out, in), bias (out,), A (r, in), B (out, r), and where they are trained own_bias (out,) and
            magnitude (out,); A_frozen and B_frozen are ranks that are not trained.
        batches: the rows of each batch of each epoch (see `shuffled`); None is one full batch an epoch.
        drop: what happens to the adapter's inputs, batch by batch.
        weight: of each row (n,).
        factors: what the learning rate is multiplied by, step by step.
        lr_b_ratio: the learning rate of B and the bias over that of A.
        each_epoch: is told the layer after every epoch.
        settings: of the optimizer; one that is None is left to PyTorch.
    """
    trained = {name: weights[name].clone().requires_grad_() for name in TRAINED if weights.get(name) is not None}
    layer = {name: weights.get(name) for name in (*GIVEN, *TRAINED)} | trained
    groups = [{"params": [tensor], "lr": lr * (1 if name == "A" else lr_b_ratio)} for name, tensor in trained.items()]
    steps = OPTIMIZERS[optimizer](groups, lr=lr, **{name: it for name, it in settings.items() if it is not None})
    rates = [group["lr"] for group in steps.param_groups]
    losses, number = [], 0
    for epoch in range(epochs):
        total = 0.0
        for rows in [torch.arange(len(x))] if batches is None else batches[epoch]:
            for group, rate in zip(steps.param_groups, rates, strict=True):
                group["lr"] = rate * (1 if factors is None else factors[number])
            steps.zero_grad()
            share = None if weight is None else weight[rows]
            error = mean_loss(loss, outputs(layer, scaling, x[rows], drop), y[rows], share)
            error.backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(list(trained.values()), max_grad_norm)
            steps.step()
            total += error.item() * (len(rows) if share is None else float(share.sum()))
            number += 1
        losses.append(total / (len(x) if weight is None else float(weight.sum())))
        each_epoch({name: None if tensor is None else tensor.detach() for name, tensor in layer.items()})
    return losses, {name: tensor.detach() for name, tensor in trained.items()}


def mean_loss(loss: str, p: Tensor, t: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over the rows, each with its weight."""
    if weight is None:
        return LOSSES[loss](p, t)
    each = torch.stack([LOSSES[loss](p[row : row + 1], t[row : row + 1]) for row in range(len(p))])
    return (weight * each).sum() / weight.sum()


def outputs(
    weights: Mapping[str, Tensor | None], scaling: float, x: Tensor, drop: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """x Wᵀ + b + s·(x Aᵀ) Bᵀ, where `own_bias` stands in for b; with a magnitude as PEFT computes DoRA."""
    own = weights.get("own_bias")
    bias = weights.get("bias") if own is None else own
    seen = x if drop is None else drop(x)
    W = weights["weight"]
    if weights.get("A_frozen") is not None:
        W = W + scaling * weights["B_frozen"] @ weights["A_frozen"]
    change = scaling * (seen @ weights["A"].T) @ weights["B"].T
    if weights.get("magnitude") is not None:
        norm = (W + scaling * weights["B"] @ weights["A"]).norm(dim=1).detach()
        factor = weights["magnitude"] / norm
        change = (factor - 1) * (seen @ W.T) + factor * change
    y = x @ W.T + change
    return y if bias is None else y + bias


def parts(layer: Any) -> dict[str, Tensor | None]:
    """A layer's tensors as `train` and `outputs` take them."""
    named = {name: getattr(layer, name) for name in ("weight", "bias")} | layer.trained()
    if not layer.frozen_rank:
        return named
    return named | {"A_frozen": layer.A[layer.rank :], "B_frozen": layer.B[:, layer.rank :]}


def shuffled(n: int, size: int, epochs: int, seed: int) -> list[list[Tensor]]:
    """The rows of every batch of every epoch, in the order that a run with this seed takes them."""
    order = stream(seed, "order")
    return [list(torch.randperm(n, generator=order).split(size)) for _ in range(epochs)]
