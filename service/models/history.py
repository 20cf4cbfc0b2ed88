"""Where the versions of the models are: in the store, or where nothing is stored, in memory."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from service.errors import CapacityExhausted, StorageUnavailable
from service.models import version_rows
from service.models.budget import Budget
from service.models.model import Model
from service.models.store import Store
from service.models.versions import Marks, Version, one_fewer

Adapter = dict[str, Tensor]

T = TypeVar("T")


class History(Protocol):
    """The versions that are kept, the current ones among them. The registry holds the lock."""

    def room(self, model: Model, kept: Marks, dropped: Marks) -> AbstractContextManager[tuple[Marks, Marks]]:
        """What is kept with the next version of a model and what goes, once there is room for it."""

    def put(self, model_id: str, version: Version, adapter: Adapter, dropped: Marks = ()) -> None:
        """A model has this version now, and others no longer; the store has been told."""

    def forget(self, model: Model) -> None:
        """The model is gone, and all its versions."""

    def all(self, model: Model) -> list[Version]:
        """The versions of a model, oldest first."""

    def version(self, model_id: str, number: int) -> Version:
        """What is known of a version that is kept."""

    def adapter(self, model_id: str, number: int) -> Adapter:
        """The tensors of a version that is kept."""


class InMemory:
    """Versions in memory. What those before the current one take is counted in the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._of: dict[str, dict[int, tuple[Version, Adapter]]] = {}

    @contextmanager
    def room(self, model: Model, kept: Marks, dropped: Marks) -> Iterator[tuple[Marks, Marks]]:
        """Where the budget has no room for one version more, an old one goes: no publication fails for its sake."""
        size = model.nbytes * (len(kept) - len(model.kept))
        try:
            self._budget.take(size)
        except CapacityExhausted:
            kept, goes = one_fewer(kept)
            dropped, size = (*dropped, *goes), 0
        try:
            yield kept, dropped
        except BaseException:
            self._budget.give(size)
            raise

    def put(self, model_id: str, version: Version, adapter: Adapter, dropped: Marks = ()) -> None:
        known = self._of.setdefault(model_id, {})
        known[version.number] = version, adapter
        for mark in dropped:
            del known[mark.number]

    def forget(self, model: Model) -> None:
        del self._of[model.id]
        self._budget.give(model.nbytes * (len(model.kept) - 1))

    def all(self, model: Model) -> list[Version]:
        return [version for version, _ in self._of[model.id].values()]

    def version(self, model_id: str, number: int) -> Version:
        return self._of[model_id][number][0]

    def adapter(self, model_id: str, number: int) -> Adapter:
        return self._of[model_id][number][1]


class InStore:
    """Versions that are read from the store when they are asked for."""

    def __init__(self, store: Store, device: torch.device | str) -> None:
        self._store, self._device = store, device

    @contextmanager
    def room(self, model: Model, kept: Marks, dropped: Marks) -> Iterator[tuple[Marks, Marks]]:
        yield kept, dropped  # that of a disk shows when it is written to

    def put(self, model_id: str, version: Version, adapter: Adapter, dropped: Marks = ()) -> None:
        pass

    def forget(self, model: Model) -> None:
        pass

    def all(self, model: Model) -> list[Version]:
        known = {version.number: version for version in version_rows.versions(self._store, model.id)}
        return [_there(known.get(mark.number)) for mark in model.kept]

    def version(self, model_id: str, number: int) -> Version:
        return _there(version_rows.version(self._store, model_id, number))

    def adapter(self, model_id: str, number: int) -> Adapter:
        return _there(version_rows.adapter(self._store, model_id, number, self._device))


def _there(found: T | None) -> T:
    if found is None:
        raise StorageUnavailable("the database has this version no longer; restart the service")
    return found
