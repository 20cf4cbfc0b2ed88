"""The models, looked up by id: as they are now or at an earlier version, their weights in memory or in the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from weakref import finalize

from service.errors import CapacityExhausted, ModelNotFound, TemporaryReducedCapacity
from service.models import base_rows, rows
from service.models.base import Base
from service.models.budget import Budget
from service.models.ground import Ground
from service.models.history import Adapter, History, InMemory, InStore
from service.models.model import LoadedModel, Model
from service.models.store import MemoryOnly, Store
from service.models.versions import Version


class Library(Ground):
    """Models by id, in order of creation. Readers take no lock: they get a snapshot and keep it.

    What the tensors in memory take is counted in the budget. Where the store has them too, those that have not been
    used for longest make room when all take more than `cache_bytes`; `loaded` reads them back.
    """

    def __init__(self, budget: Budget, store: Store | None, cache_bytes: int, device: str) -> None:
        super().__init__(rows.models(store or MemoryOnly()), budget, store, cache_bytes, device)
        self._history: History = InStore(self._store, device) if self._store.durable else InMemory(budget)

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._models

    def all(self) -> list[Model]:
        """Every model, oldest first."""
        return list(self._models.values())

    def get(self, model_id: str) -> Model:
        """What is known of the model now.

        Raises:
            ModelNotFound
        """
        try:
            return self._models[model_id]
        except KeyError:
            raise ModelNotFound(f"there is no model {model_id}; GET /models lists those there are") from None

    def at_hand(self, model_id: str) -> LoadedModel | None:
        """The model as it is now where its weights are in memory; None where `loaded` would have to read them.

        Raises:
            ModelNotFound
        """
        model = self.get(model_id)
        if not isinstance(model, LoadedModel):
            return None
        if self._store.durable:
            self._weights.touched.add(model_id)
        return model

    def is_current(self, model: LoadedModel) -> bool:
        """Whether these are the weights with which the model is known now."""
        return self._models.get(model.id) is model

    def loaded(self, model_id: str, number: int | None = None) -> LoadedModel:
        """The model as it is now, or at an earlier version, with its weights, read from the store where they are there.

        Those of an earlier version are counted for as long as somebody has them.

        Raises:
            ModelNotFound, VersionNotFound
            TemporaryReducedCapacity: when there is no memory for the weights.
            StorageUnavailable: when they cannot be read.
        """
        if number is None:
            return self.at_hand(model_id) or self._kept(model_id)
        with self._lock:  # so that no publication comes between
            model = self.get(model_id)
            model.must_keep(number)
            return self.loaded(model_id) if number == model.version else self._lent(model, number)

    def versions(self, model_id: str) -> tuple[Model, list[Version]]:
        """The model, and what is known of its versions that are kept, oldest first.

        Raises:
            ModelNotFound
            StorageUnavailable: when that cannot be read.
        """
        with self._lock:
            model = self.get(model_id)
            return model, self._history.all(model)

    @contextmanager
    def version(self, model_id: str, number: int) -> Iterator[tuple[Version, Adapter]]:
        """What is known of a version that is kept, and its tensors, which are counted meanwhile.

        Raises:
            ModelNotFound, VersionNotFound
            TemporaryReducedCapacity: when there is no memory for the tensors.
            StorageUnavailable: when they cannot be read.
        """
        with self._lock:
            model = self.get(model_id)
            model.must_keep(number)
            size = model.nbytes * self._store.durable  # else they are in memory already
            with _soon_free():
                self.budget.take(size)
            try:
                yield self._history.version(model_id, number), self._history.adapter(model_id, number)
            finally:
                self.budget.give(size)

    def read(self, model_id: str) -> LoadedModel:
        """The model as `loaded` gives it, without keeping in memory what is not there yet.

        Raises:
            ModelNotFound
            StorageUnavailable: when the weights cannot be read.
        """
        there = self.at_hand(model_id)
        if there is not None:
            return there
        with self._lock:
            model = self.get(model_id)
            if isinstance(model, LoadedModel):  # meanwhile
                return model
            return self._with_weights(model, self._history.adapter(model_id, model.version))

    def _with_weights(self, model: Model, adapter: Adapter) -> LoadedModel:
        return LoadedModel.of(model, tuple(map(self._base, model.base_ids)), adapter)

    def _base(self, base_id: str) -> Base:
        return self._bases.at_hand(base_id) or base_rows.read(self._store, self._bases.get(base_id), self.device)

    def _kept(self, model_id: str) -> LoadedModel:
        with self._lock, _soon_free():
            read = self.read(model_id)
            if self._models[model_id] is not read:
                self._weights.hold(self._weights.take(read), read)
            return read

    def _lent(self, model: Model, number: int) -> LoadedModel:
        earlier = self._with_weights(replace(model, version=number), self._history.adapter(model.id, number))
        if self._store.durable:  # else it is in memory already
            with _soon_free():
                size = self._weights.take(earlier, cached=False)
            finalize(earlier, self.budget.give, size)
        return earlier


@contextmanager
def _soon_free() -> Iterator[None]:
    """What memory is full of is not what is asked for here, so that it may be gone soon."""
    try:
        yield
    except CapacityExhausted as full:
        raise TemporaryReducedCapacity(full.detail, reason="no-memory", **full.facts) from None
