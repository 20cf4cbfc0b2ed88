"""Models as changes to the store, and back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor

from service.codecs.safetensors import dump, read
from service.lora.spec import spec_of
from service.models.combined import Combined
from service.models.model import Model
from service.models.store import Change, Drop, Put, Store
from service.models.versions import Mark


def changed(model: Model) -> Iterator[Change]:
    """What is known of a model beside its weights."""
    facts = {"spec": asdict(model.spec), **{name: getattr(model, name) for name in FACTS}}
    if model.base_id is None:
        facts["base_ids"] = model.base_ids
    yield Put("models", {"id": model.id, "base_id": model.base_ids[0], "facts": dumps(facts)})


def removed(models: Iterable[Model]) -> Iterator[Change]:
    """Models that are gone."""
    for model in models:
        yield Drop("models", {"id": model.id})


def models(store: Store, **where: Any) -> Iterator[Model]:
    """The models that the store has, all or those of these ids, oldest first, without their weights."""
    for row in store.rows("models", "id", "base_id", "facts", **where):
        facts = orjson.loads(row["facts"])
        times: dict[str, Any] = {name: datetime.fromisoformat(facts.pop(name)) for name in ("created_at", "updated_at")}
        known: dict[str, Any] = {
            "spec": spec_of(facts.pop("spec")),
            "base_ids": tuple(facts.pop("base_ids", [row["base_id"]])),
            "kept": tuple(Mark(**mark) for mark in facts.pop("kept")),
            "combined": Combined.of(facts.pop("combined", None)),
        }
        yield Model(id=row["id"], **known, **times, **facts)


FACTS = (
    "seed",
    "created_at",
    "updated_at",
    "version",
    "revision",
    "name",
    "metadata",
    "last_loss",
    "kept",
    "combined",
)


def packed_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as a file of safetensors."""
    return dump({name: tensor.cpu().numpy() for name, tensor in tensors.items()})


def unpacked_tensors(packed: bytes, device: torch.device | str) -> dict[str, Tensor]:
    """The tensors of a file that `packed_tensors` made, in memory of their own."""
    return {name: torch.from_numpy(np.array(array)).to(device) for name, array in read(packed).items()}


def dumps(facts: Any) -> str:
    """Facts as JSON."""
    return orjson.dumps(facts).decode()
