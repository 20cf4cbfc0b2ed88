"""Sweeps as changes to the store, and back."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from service.models.rows import dumps
from service.models.store import Change, Drop, Put, Store


def added(sweep_id: str, members: Sequence[Mapping[str, Any]], created_at: datetime) -> Iterator[Change]:
    """A sweep with its members, each an object of JSON's own types."""
    yield Put("sweeps", {"id": sweep_id, "facts": dumps({"members": members, "created_at": created_at})})


def removed(sweep_id: str) -> Iterator[Change]:
    """A sweep that is gone."""
    yield Drop("sweeps", {"id": sweep_id})


def sweeps(store: Store, **where: Any) -> Iterator[tuple[str, list[dict[str, Any]], datetime]]:
    """The sweeps that the store has, all or those of these ids, oldest first: id, members, and when each began."""
    for row in store.rows("sweeps", "id", "facts", **where):
        facts = orjson.loads(row["facts"])
        yield row["id"], facts["members"], datetime.fromisoformat(facts["created_at"])
