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
TRAINED = ("A", "B", "own_bias")


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
    **settings: Any,
) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of each epoch, and the trained tensors by name; the given tensors stay as they are.

    Args:
        weights: weight (out, in), bias (out,), A (r, in), B (out, r), and own_bias (out,) where that is trained.
        batches: the rows of each batch of each epoch (see `shuffled`); None is one full batch an epoch.
        drop: what happens to the adapter's inputs, batch by batch.
        settings: of the optimizer; one that is None is left to PyTorch.
    """
    trained = {name: weights[name].clone().requires_grad_() for name in TRAINED if weights.get(name) is not None}
    layer = {**weights, **trained}
    steps = OPTIMIZERS[optimizer](
        list(trained.values()), lr=lr, **{name: value for name, value in settings.items() if value is not None}
    )
    losses = []
    for epoch in range(epochs):
        total = 0.0
        for rows in [torch.arange(len(x))] if batches is None else batches[epoch]:
            steps.zero_grad()
            error = LOSSES[loss](outputs(layer, scaling, x[rows], drop), y[rows])
            error.backward()
            steps.step()
            total += error.item() * len(rows)
        losses.append(total / len(x))
    return losses, {name: tensor.detach() for name, tensor in trained.items()}


def outputs(
    weights: Mapping[str, Tensor | None], scaling: float, x: Tensor, drop: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """x Wᵀ + b + s·(x Aᵀ) Bᵀ, where `own_bias` stands in for b."""
    own = weights.get("own_bias")
    bias = weights.get("bias") if own is None else own
    seen = x if drop is None else drop(x)
    y = x @ weights["weight"].T + scaling * (seen @ weights["A"].T) @ weights["B"].T
    return y if bias is None else y + bias


def shuffled(n: int, size: int, epochs: int, seed: int) -> list[list[Tensor]]:
    """The rows of every batch of every epoch, in the order that a run with this seed takes them."""
    order = stream(seed, "order")
    return [list(torch.randperm(n, generator=order).split(size)) for _ in range(epochs)]
