"""A weighted sum of adapters on one base as one adapter: exact, or the nearest of fewer ranks."""

from collections.abc import Iterable

import torch
from torch import Tensor

from service.lora.change import Change


def stacked(changes: Iterable[Change]) -> Change:
    """The sum of products: A above A, B beside B, so that its ranks are those of all together."""
    parts = list(changes)
    A, B = torch.cat([each.A for each in parts]), torch.cat([_up(each) for each in parts], dim=1)
    return Change(A, B, sum(each.floor for each in parts))


def added(changes: Iterable[Change]) -> Change:
    """The sum as a whole matrix, one change after another."""
    total, floor = None, 0.0
    for each in changes:
        floor += each.floor
        if total is None:
            total = each.whole().clone()
        elif each.B is None:
            total += each.A
        else:
            total.addmm_(each.B, each.A)
    assert total is not None, "a sum has members"
    return Change(total, None, floor)


def compressed(change: Change, rank: int) -> tuple[Change, float, float]:
    """The nearest change of a rank (Eckart and Young 1936), how far it is as ‖·‖_F, and that over the change's ‖·‖_F.

    A and B each take the root of the singular values. A rank that is not needed has a direction in A all the same, and
    zero in B: were both zero, it could never learn.
    """
    U, values, Vt = change.svd()
    root = values[:rank].sqrt()
    error, size = float(values[rank:].norm()), float(values.norm())
    A = torch.where(root > 0, root, 1.0)[:, None] * Vt[:rank]
    return Change(A, U[:, :rank] * root), error, error / size if size else 0.0


def own_bias(bias: Tensor, own: Iterable[tuple[Tensor, float]]) -> Tensor:
    """b + Σ weight·(own bias - b), of those members that have a bias of their own: (out,) in float64."""
    frozen = bias.double()
    return frozen + sum((weight * (each.double() - frozen) for each, weight in own), torch.zeros_like(frozen))


def _up(change: Change) -> Tensor:
    assert change.B is not None, "only products are stacked"
    return change.B
