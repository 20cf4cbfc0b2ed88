"""Train the adapter of one layer: a generator that yields after each step and returns the trained copy."""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from service.lora.init import stream
from service.lora.layer import LoRALinear
from service.training.datasets import drawn
from service.training.losses import LOSSES
from service.training.optimizers import OPTIMIZERS
from service.training.plan import Plan, looked_at

Rows = slice | Tensor


class Diverged(Exception):
    """A loss or a weight is no longer finite as float32."""


@dataclass(frozen=True)
class Fitted:
    """What a run leaves: the trained layer, and its loss over all the training data."""

    layer: LoRALinear
    loss: float


def fit(
    layer: LoRALinear, x: Tensor, y: Tensor, plan: Plan, dropout: float = 0.0
) -> Generator[float | None, None, Fitted]:
    """Train a copy of the layer's adapter on x (n, in) and y; the given layer stays as it is.

    Yields None after each step, and after the last step of an epoch that epoch's loss: the mean over its rows,
    each batch measured before its own update. At the end it yields None after each piece of the last look at the data.
    Closing the generator stops the run where it yields.

    Raises:
        Diverged: when an epoch's loss, or a weight after it, is not finite as float32.
    """
    loss_and_gradient = LOSSES[plan.loss]
    parameters, views = flat(layer.adapter())
    gradient, gradient_views = flat({name: torch.zeros_like(view) for name, view in views.items()})
    learner = layer.adapted(views)  # its A and B move as `parameters` does
    optimizer = OPTIMIZERS[plan.optimizer](parameters, plan)
    frozen = layer.frozen(x)  # once for the whole run: no step changes it
    seed = drawn(plan.seed)
    order, masks = stream(seed, "order"), stream(seed, "dropout")

    def must_be_finite(loss: float) -> float:
        if not math.isfinite(loss) or not bool(parameters.isfinite().all()):
            raise Diverged
        return loss

    for _ in range(plan.epochs):
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for rows in batches(len(x), plan.batch_size, order):
            seen = drop(x[rows], dropout, masks)
            down = linear(seen, learner.A)
            loss, dp = loss_and_gradient(outputs(learner, frozen[rows], down), y[rows])
            backward(learner, seen, down, dp, into=gradient_views)
            optimizer.step(parameters, gradient)
            total += loss.double() * len(seen)
            yield None
        yield must_be_finite(float(total) / len(x))

    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for rows in pieces(len(x), looked_at(plan)):
        loss, _ = loss_and_gradient(outputs(learner, frozen[rows], linear(x[rows], learner.A)), y[rows])
        total += loss.double() * len(x[rows])
        yield None
    trained = layer.adapted({name: view.clone() for name, view in views.items()})
    return Fitted(trained, must_be_finite(float(total) / len(x)))


def flat(adapter: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """A copy of the tensors as one vector, and views of it in their shapes."""
    vector = torch.cat([tensor.flatten() for tensor in adapter.values()])
    parts = torch.split(vector, [tensor.numel() for tensor in adapter.values()])
    return vector, {name: part.view_as(tensor) for (name, tensor), part in zip(adapter.items(), parts, strict=True)}


def batches(n: int, size: int | None, order: torch.Generator) -> Iterator[Rows]:
    """All rows at once, or shuffled minibatches of which the last may be smaller."""
    if size is None:
        yield slice(n)
    else:
        shuffled = torch.randperm(n, generator=order)
        yield from (shuffled[rows] for rows in pieces(n, size))


def pieces(n: int, size: int) -> Iterator[slice]:
    """All rows in their order, at most `size` at a time."""
    yield from (slice(start, start + size) for start in range(0, n, size))


def drop(x: Tensor, p: float, masks: torch.Generator) -> Tensor:
    """Zero each number with probability p and scale the others up by 1/(1 - p)."""
    if p == 0:
        return x
    kept = torch.rand(x.shape, generator=masks) >= p
    return (x * kept.to(x.device)).div_(1 - p)


def outputs(layer: LoRALinear, frozen: Tensor, down: Tensor) -> Tensor:
    """The layer's outputs (n, out) from their frozen part and x Aᵀ (n, r)."""
    p = torch.addmm(frozen, down, layer.B.T, alpha=layer.scaling)
    return p if layer.own_bias is None else p.add_(layer.own_bias)


def backward(layer: LoRALinear, x: Tensor, down: Tensor, dp: Tensor, into: dict[str, Tensor]) -> None:
    """Write the gradients of A, B and the own bias, given dL/dp (n, out): the chain rule through two products."""
    dp_scaled = layer.scaling * dp
    torch.mm(dp_scaled.T, down, out=into["B"])  # (out, r)
    torch.mm((dp_scaled @ layer.B).T, x, out=into["A"])  # (r, in)
    if layer.own_bias is not None:
        torch.sum(dp, 0, out=into["own_bias"])
