"""Versions of models as changes to the store, and back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

import orjson
import torch
from torch import Tensor

from service.models.rows import dumps, packed_tensors, unpacked_tensors
from service.models.store import Change, Drop, Put, Store
from service.models.versions import Mark, Version
from service.training.plan import as_dict, from_dict

FACTS = tuple(field.name for field in fields(Version) if field.name not in ("number", "plan"))


def added(model_id: str, version: Version, adapter: Mapping[str, Tensor]) -> Iterator[Change]:
    """A version that a model has now, with its tensors."""
    known = {name: getattr(version, name) for name in FACTS}
    facts = dumps({**known, "plan": None if version.plan is None else as_dict(version.plan)})
    key = {"model_id": model_id, "number": version.number}
    yield Put("versions", {**key, "facts": facts, "tensors": packed_tensors(adapter)})


def dropped(model_id: str, marks: Iterable[Mark]) -> Iterator[Change]:
    """Versions that are kept no longer."""
    for mark in marks:
        yield Drop("versions", {"model_id": model_id, "number": mark.number})


def versions(store: Store, model_id: str) -> Iterator[Version]:
    """The versions of a model that are kept, oldest first, without their tensors."""
    for row in store.rows("versions", "number", "facts", model_id=model_id):
        yield _version(row["number"], row["facts"])


def version(store: Store, model_id: str, number: int) -> Version | None:
    """A version without its tensors; None where it is not kept."""
    for row in store.rows("versions", "facts", model_id=model_id, number=number):
        return _version(number, row["facts"])
    return None


def adapter(store: Store, model_id: str, number: int, device: torch.device | str) -> dict[str, Tensor] | None:
    """The tensors of a version; None where it is not kept."""
    for row in store.rows("versions", "tensors", model_id=model_id, number=number):
        return unpacked_tensors(row["tensors"], device)
    return None


def _version(number: int, text: str) -> Version:
    facts: dict[str, Any] = orjson.loads(text)
    at, plan = datetime.fromisoformat(facts.pop("created_at")), facts.pop("plan")
    return Version(number=number, created_at=at, plan=plan and from_dict(plan), **facts)
