"""What a change of a weight is like: how many directions it has, how it looks, and how near it is to another."""

import torch
from torch import Tensor

from service.lora.change import Change, Decomposition

CELLS = 64  # rows and columns of a picture, at most
BLOCK = 64  # rows that are there in float64 at a time


def norm(weight: Tensor) -> float:
    """‖W‖_F in float64, without a copy of W."""
    return float(torch.stack([rows.double().norm() for rows in weight.tensor_split(-(-len(weight) // BLOCK))]).norm())


def effective_rank(values: Tensor) -> float:
    """exp of the entropy of σ/Σσ (Roy and Vetterli 2007): between 1 and the rank; 0 of no change."""
    shares = values[values > 0] / values.sum()
    return float((-(shares * shares.log()).sum()).exp()) if len(shares) else 0.0


def stable_rank(values: Tensor) -> float:
    """‖D‖_F² / σ₁²: at most the rank; 0 of no change."""
    return float((values / values[0]).square().sum()) if values[0] > 0 else 0.0


def energy(values: Tensor) -> list[float] | None:
    """The share of Σσ² that the best change of each rank from 1 up keeps; None of no change."""
    if values[0] == 0:
        return None
    kept = (values / values[0]).square().cumsum(0)
    return [float(share) for share in kept / kept[-1]]


def pooled(matrix: Tensor) -> Tensor:
    """A picture of at most 64 by 64: the means over blocks whose sides differ by one at most."""
    return _pooled_rows(_pooled_rows(matrix).T).T


def pooled_change(change: Change) -> Tensor:
    """The picture of a change, without forming it: the mean of a block of B A is that of B's rows times A's columns."""
    if change.B is None:
        return pooled(change.A)
    return _pooled_rows(change.B) @ _pooled_rows(change.A.T).T


def cosine(one: Change, other: Change, norms: tuple[float, float]) -> float | None:
    """⟨D₁, D₂⟩ / (‖D₁‖ ‖D₂‖), from -1 to 1; None where one of the norms is zero."""
    if not all(norms):
        return None
    first, second = (Change(each.A / norm, each.B) for each, norm in zip((one, other), norms, strict=True))
    return max(-1.0, min(1.0, first.inner(second)))


def subspaces(one: Decomposition, other: Decomposition) -> tuple[float | None, float | None]:
    """How much of the smaller row space, and column space, lies in the other: from 0 to 1; None without any change.

    ‖V₁ᵀ V₂‖_F² / min(r₁, r₂), and the same of U: Hu et al. 2021, section 7.2, with all directions there are.
    """
    (U1, values1, Vt1), (U2, values2, Vt2) = one, other
    r1, r2 = int((values1 > 0).sum()), int((values2 > 0).sum())
    if not r1 or not r2:
        return None, None
    rows, columns = Vt1[:r1] @ Vt2[:r2].T, U1[:, :r1].T @ U2[:, :r2]
    inputs, outputs = (min(1.0, float(each.square().sum()) / min(r1, r2)) for each in (rows, columns))
    return inputs, outputs


def _pooled_rows(matrix: Tensor) -> Tensor:
    return torch.stack([block.mean(0) for block in matrix.tensor_split(min(CELLS, len(matrix)))])
