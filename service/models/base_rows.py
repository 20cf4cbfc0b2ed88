"""Bases as changes to the store, and back."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import torch

from service.codecs.layer import dumped
from service.codecs.safetensors import load
from service.errors import StorageUnavailable
from service.models.base import Base, BaseRecord
from service.models.rows import dumps
from service.models.store import Change, Drop, Put, Store


def added(record: BaseRecord, base: Base) -> Iterator[Change]:
    """A base, also one that is known, with its tensors in the dtype that is kept."""
    facts = asdict(record)
    columns = {"id": facts.pop("id"), "nbytes": record.nbytes, "facts": dumps(facts)}
    yield Put("bases", {**columns, "tensors": dumped(base.layer)})


def removed(base_id: str) -> Iterator[Change]:
    """A base that is gone."""
    yield Drop("bases", {"id": base_id})


def records(store: Store, **where: Any) -> Iterator[BaseRecord]:
    """The bases that the store has: all, or those of these ids."""
    for row in store.rows("bases", "id", "facts", **where):
        facts = orjson.loads(row["facts"])
        yield BaseRecord(id=row["id"], created_at=datetime.fromisoformat(facts.pop("created_at")), **facts)


def read(store: Store, record: BaseRecord, device: torch.device | str) -> Base:
    """A base, with its tensors.

    Raises:
        StorageUnavailable: for one that the store has no longer.
    """
    for row in store.rows("bases", "tensors", id=record.id):
        tensors = {
            name: torch.from_numpy(np.array(array, np.float32)).to(device)
            for name, array in load(row["tensors"]).items()
        }
        return Base(record.id, tensors["weight"], tensors.get("bias"), record.dtype)
    raise StorageUnavailable("the database has this base no longer; restart the service")
