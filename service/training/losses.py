"""Six losses, each with its gradient in the outputs: with those two, a LoRA layer needs no autograd.

Each takes outputs p (n, out) and targets t, and returns the mean loss (a scalar) and dL/dp (n, out), equal to
what `torch.nn.functional` and autograd give (but for rows shorter than 1e-8 under `cosine`, where the gradient here is
that of the clamped length).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

LossAndGradient = tuple[Tensor, Tensor]

HUBER_DELTA = 1.0
COSINE_EPS = 1e-8  # as in torch.nn.functional.cosine_similarity


def mse(p: Tensor, t: Tensor) -> LossAndGradient:
    """Mean of (p - t)²."""
    error = p - t
    return error.square().mean(), error.mul(2 / p.numel())


def mae(p: Tensor, t: Tensor) -> LossAndGradient:
    """Mean of |p - t|."""
    error = p - t
    return error.abs().mean(), error.sign().div_(p.numel())


def huber(p: Tensor, t: Tensor) -> LossAndGradient:
    """Mean of a parabola within ±1 of the target and a line outside."""
    error = p - t
    bent = error.clamp(-HUBER_DELTA, HUBER_DELTA)
    return (bent * (error - 0.5 * bent)).mean(), bent.div(p.numel())


def cross_entropy(p: Tensor, t: Tensor) -> LossAndGradient:
    """Mean of -log softmax(p)[t]; t holds one class per row."""
    rows = torch.arange(len(t), device=t.device)
    log_softmax = p.log_softmax(1)
    gradient = log_softmax.exp()
    gradient[rows, t] -= 1
    return -log_softmax[rows, t].mean(), gradient.div_(len(t))


def bce_with_logits(p: Tensor, t: Tensor) -> LossAndGradient:
    """Mean of -t·log σ(p) - (1 - t)·log(1 - σ(p))."""
    return binary_cross_entropy_with_logits(p, t), (p.sigmoid() - t).div_(p.numel())


def cosine(p: Tensor, t: Tensor) -> LossAndGradient:
    """Mean over the rows of 1 - cos(p, t)."""
    length = p.norm(dim=1, keepdim=True)
    clamped = length.clamp_min(COSINE_EPS)
    toward = t / t.norm(dim=1, keepdim=True).clamp_min(COSINE_EPS)
    unit = p / clamped
    cos = (unit * toward).sum(1, keepdim=True)
    # Below eps the length no longer divides out, so turning the row is all there is.
    shrink = torch.where(length > COSINE_EPS, cos, torch.zeros_like(cos)) * unit
    return 1 - cos.mean(), (shrink - toward).div_(clamped * len(p))


LOSSES: dict[str, Callable[[Tensor, Tensor], LossAndGradient]] = {
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "cross_entropy": cross_entropy,
    "bce_with_logits": bce_with_logits,
    "cosine": cosine,
}
