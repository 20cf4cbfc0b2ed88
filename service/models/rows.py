"""Models as changes to the store, and back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.codecs.safetensors import dump, read
from service.errors import StorageUnavailable
from service.lora.spec import Spec
from service.models.model import LoadedModel, Model
from service.models.store import Change, Drop, Put, Row, Store

Arrays = Mapping[str, NDArray[Any]]


def added(model: LoadedModel) -> Iterator[Change]:
    """A new model, whose base is there."""
    yield from changed(model)
    yield from weights(model.id, model.adapter)


def changed(model: Model) -> Iterator[Change]:
    """What is known of a model beside its weights."""
    facts = {name: getattr(model, name) for name in FACTS}
    yield Put(
        "models",
        {"id": model.id, "base_id": model.base_id, "facts": dumps({"spec": asdict(model.spec), **facts})},
    )


def weights(model_id: str, adapter: Mapping[str, Tensor]) -> Iterator[Change]:
    """A model's own tensors."""
    yield Put("adapters", {"model_id": model_id, "tensors": packed_tensors(adapter)})


def removed(models: Iterable[Model]) -> Iterator[Change]:
    """Models that are gone."""
    for model in models:
        yield Drop("models", {"id": model.id})


def models(store: Store) -> Iterator[Model]:
    """All models that the store has, oldest first, without their weights."""
    for row in store.rows("models", "id", "base_id", "facts"):
        facts = orjson.loads(row["facts"])
        times: dict[str, Any] = {name: datetime.fromisoformat(facts.pop(name)) for name in ("created_at", "updated_at")}
        yield Model(id=row["id"], base_id=row["base_id"], spec=Spec(**facts.pop("spec")), **times, **facts)


def adapter(store: Store, model_id: str, device: torch.device | str) -> dict[str, Tensor]:
    """A model's own tensors."""
    return unpacked_tensors(_only(store.rows("adapters", "tensors", model_id=model_id))["tensors"], device)


FACTS = ("seed", "created_at", "updated_at", "version", "revision", "name", "metadata", "last_loss")


def packed_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as a file of safetensors."""
    return dump({name: tensor.cpu().numpy() for name, tensor in tensors.items()})


def unpacked_tensors(packed: bytes, device: torch.device | str) -> dict[str, Tensor]:
    """The tensors of a file that `packed_tensors` made, in memory of their own."""
    return {name: torch.from_numpy(np.array(array)).to(device) for name, array in read(packed).items()}


def dumps(facts: Any) -> str:
    """Facts as JSON."""
    return orjson.dumps(facts).decode()


def _only(rows: Iterator[Row]) -> Row:
    for row in rows:
        return row
    raise StorageUnavailable("the database has these weights no longer; restart the service")
