"""What models stand on: bases that are known, taken in, read back and removed."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime

from service.models import base_rows
from service.models.base import Base, BaseRecord
from service.models.bases import Bases
from service.models.budget import Budget
from service.models.model import Model
from service.models.store import Change, MemoryOnly, Store
from service.models.weights import Weights

BaseAlso = Callable[[BaseRecord], Iterable[Change]]


class Ground:
    """The bases, and the models on them as far as bases need to know. A change is stored before anybody sees it.

    Where a store has the tensors, `base` reads them back when they are not in memory.
    """

    def __init__(
        self, models: Iterable[Model], budget: Budget, store: Store | None, cache_bytes: int, device: str
    ) -> None:
        self.budget = budget
        self.device = device
        self._store = store or MemoryOnly()
        self._models = {model.id: model for model in models}
        self._bases = Bases(base_rows.records(self._store))
        for model in self._models.values():
            self._bases.stand(model.base_ids, model.id)
        self._weights = Weights(self._models, self._bases, budget, cache_bytes, stored=self._store.durable)
        self._lock = threading.RLock()

    @property
    def base_count(self) -> int:
        """How many bases there are."""
        return len(self._bases)

    def bases(self) -> list[BaseRecord]:
        """What is known of every base, in the order of their ids."""
        return self._bases.all()

    def base_record(self, base_id: str) -> BaseRecord:
        """What is known of a base.

        Raises:
            BaseNotFound
        """
        return self._bases.get(base_id)

    def models_on(self, base_id: str) -> int:
        """How many models stand on a base."""
        return len(self._bases.models(base_id))

    def base(self, base_id: str) -> Base:
        """The base with this id, read from the store where its tensors are not in memory.

        Raises:
            BaseNotFound
            CapacityExhausted: when there is no memory for it.
            StorageUnavailable: when it cannot be read.
        """
        with self._lock:
            record = self._bases.get(base_id)
            there = self._bases.at_hand(base_id)
            if there is not None:
                return there
        with self.budget.held(record.nbytes):
            return base_rows.read(self._store, record, self.device)

    def add_base(self, base: Base, created_at: datetime, also: BaseAlso = lambda record: ()) -> tuple[BaseRecord, bool]:
        """Take in a base that is to stay until it is removed; what is known of it, and whether it is new.

        Args:
            also: what is to be stored in the same transaction.

        Raises:
            CapacityExhausted: when there is no memory for it, where nothing is stored.
            InsufficientStorage, StorageUnavailable: when it could not be stored.
        """
        with self._store.turn(), self._lock:
            known = base.id in self._bases
            if known and self._bases.get(base.id).uploaded:
                record = self._bases.get(base.id)
                self._store.write(also(record))
                return record, False
            there = self._bases.at_hand(base.id)
            record = BaseRecord.of(base, self._bases.get(base.id).created_at if known else created_at, uploaded=True)
            size = 0 if self._store.durable or there is not None else base.nbytes
            with self.budget.kept(size):
                self._store.write(base_rows.added(record, base), also(record))
            self._bases.put(record)
            if not self._store.durable:
                self._weights.used += size
                self._bases.hold(there or base)
            return record, not known

    def remove_base(self, base_id: str) -> None:
        """Forget an uploaded base.

        Raises:
            BaseNotFound
            BaseBusy: while models stand on it.
            InsufficientStorage, StorageUnavailable: when that could not be stored.
        """
        with self._store.turn(), self._lock:
            self._bases.get(base_id)
            self._bases.must_be_free(base_id)
            self._store.write(base_rows.removed(base_id))
            if not self._store.durable:
                self._weights.give(self._bases.let_go(base_id))
            self._bases.drop(base_id)
