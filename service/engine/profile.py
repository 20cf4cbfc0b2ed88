"""Which rank a model needs: the lowest loss that any adapter of each rank reaches, computed, not tried."""

from dataclasses import dataclass, replace

import torch

from service.codecs.message import Arrays
from service.models.model import LoadedModel
from service.training import datasets
from service.training.arrays import backend_of
from service.training.moments import best_losses, gathered, given_moments, residual
from service.training.plan import Plan


@dataclass(frozen=True)
class Reach:
    """What the best adapter of a rank has: its loss over the data, and its trainable parameters."""

    rank: int
    loss: float
    trainable: int


def rank_profile(model: LoadedModel, plan: Plan, rows: Arrays) -> list[Reach]:
    """The reach of every rank from 0 to min(in_features, out_features), for full-batch mse on the plan's data."""
    spec = model.spec
    layer = replace(
        model.layer.layers[0], frozen_rank=0
    )  # however this one begins, an adapter may stand on all of the base
    sent = {name.removeprefix("data."): torch.from_numpy(array).to(layer.weight.device) for name, array in rows.items()}
    backend = backend_of(layer.weight)
    moments = given_moments(backend, sent)
    if moments is None:
        data = datasets.load(plan.data, layer, sent)
        moments = gathered(backend, data.x, data.y, data.weight)
    known = residual(backend, moments, layer)
    own = spec.out_features * (spec.train_bias + spec.use_dora)
    return [
        Reach(rank, loss, rank * (spec.in_features + spec.out_features) + own)
        for rank, loss in enumerate(best_losses(known, bias_is_free=spec.train_bias))
    ]
