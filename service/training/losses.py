"""Six losses, each with its gradient in the outputs: with those two, a LoRA layer needs no autograd.

Each takes outputs p (runs, n, out), which it may overwrite, and targets t, and returns the loss of every row (runs, n)
and its gradient (runs, n, out). Their mean over the rows is what `torch.nn.functional` and autograd give (but for rows
shorter than 1e-8 under `cosine`, where the gradient here is that of the clamped length).
"""

from collections.abc import Callable
from typing import Any

from service.training.arrays import Array

LossAndGradient = tuple[Array, Array]

HUBER_DELTA = 1.0
COSINE_EPS = 1e-8  # as in torch.nn.functional.cosine_similarity


def mse(xp: Any, p: Array, t: Array) -> LossAndGradient:
    """Mean of (p - t)² over the outputs."""
    out = p.shape[-1]
    p -= t
    loss = xp.einsum("jno,jno->jn", p, p)
    loss /= out
    p *= 2 / out
    return loss, p


def mae(xp: Any, p: Array, t: Array) -> LossAndGradient:
    """Mean of |p - t| over the outputs."""
    p -= t
    return xp.abs(p).mean(-1), xp.sign(p) / p.shape[-1]


def huber(xp: Any, p: Array, t: Array) -> LossAndGradient:
    """Mean over the outputs of a parabola within ±1 of the target and a line outside."""
    p -= t
    bent = xp.clip(p, -HUBER_DELTA, HUBER_DELTA)
    return (bent * (p - 0.5 * bent)).mean(-1), bent / p.shape[-1]


def cross_entropy(xp: Any, p: Array, t: Array) -> LossAndGradient:
    """-log softmax(p)[t]; t holds one class per row, (runs, n), or (1, n) for all runs."""
    runs, n, out = p.shape
    p -= xp.amax(p, axis=-1, keepdims=True)
    flat = p.reshape(runs * n, out)
    at = (xp.arange(runs * n, device=p.device), xp.broadcast_to(t, (runs, n)).reshape(-1))
    chosen = flat[at].reshape(runs, n)
    xp.exp(p, out=p)
    total = p.sum(-1)
    p /= total[..., None]
    flat[at] -= 1
    return xp.log(total) - chosen, p


def bce_with_logits(xp: Any, p: Array, t: Array) -> LossAndGradient:
    """Mean over the outputs of -t·log σ(p) - (1 - t)·log(1 - σ(p))."""
    out = p.shape[-1]
    small = xp.exp(-xp.abs(p))
    loss = (xp.where(p > 0, p, 0 * p) - p * t + xp.log1p(small)).mean(-1)
    sigmoid = xp.where(p > 0, 1 / (1 + small), small / (1 + small))
    sigmoid -= t
    sigmoid /= out
    return loss, sigmoid


def cosine(xp: Any, p: Array, t: Array) -> LossAndGradient:
    """1 - cos(p, t)."""
    length = xp.sqrt((p * p).sum(-1))[..., None]
    clamped = xp.clip(length, COSINE_EPS, None)
    toward = t / xp.clip(xp.sqrt((t * t).sum(-1))[..., None], COSINE_EPS, None)
    unit = p / clamped
    cos = (unit * toward).sum(-1)[..., None]
    # Below eps the length no longer divides out, so turning the row is all there is.
    shrink = xp.where(length > COSINE_EPS, cos, 0 * cos) * unit
    return 1 - cos[..., 0], (shrink - toward) / clamped


LOSSES: dict[str, Callable[[Any, Array, Array], LossAndGradient]] = {
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "cross_entropy": cross_entropy,
    "bce_with_logits": bce_with_logits,
    "cosine": cosine,
}
