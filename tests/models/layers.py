"""Small bases and models, made by hand."""

from datetime import UTC, datetime
from typing import Any

import torch

from service.lora.spec import Spec
from service.models.base import Base
from service.models.model import LoadedModel, Model
from service.models.versions import Version

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def base(out_features: int = 3, in_features: int = 4, *, bias: bool = True, fill: float = 1.0) -> Base:
    return Base.of(torch.full((out_features, in_features), fill), torch.zeros(out_features) if bias else None)


def model(model_id: str = "mdl_1", on: Base | None = None, **facts: Any) -> LoadedModel:
    """A model of rank 2 whose adapter takes 4·2·(in + out) bytes."""
    on = on or base()
    out_features, in_features = on.weight.shape
    spec = Spec(in_features=in_features, out_features=out_features, rank=2, bias=on.bias is not None)
    adapter = {"A": torch.ones(2, in_features), "B": torch.zeros(out_features, 2)}
    known = {"id": model_id, "spec": spec, "seed": 0, "created_at": NOW, "updated_at": NOW, **facts}
    return LoadedModel(**known, base_ids=(on.id,), bases=(on,), adapter=adapter)


def trained(of: Model, loss: float = 0.1) -> Version:
    """The version that a training of a model makes."""
    return of.next(NOW, "training", loss=loss)


def filled(number: float) -> dict[str, torch.Tensor]:
    """Weights of such a model, all of one number."""
    return {name: torch.full_like(tensor, number) for name, tensor in model().adapter.items()}
