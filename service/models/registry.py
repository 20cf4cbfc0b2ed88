"""The models and their bases, keyed by id: what is known of them in memory, weights in memory or on the disk."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from itertools import chain

from torch import Tensor

from service.errors import CapacityExhausted, ModelNotFound, TemporaryReducedCapacity
from service.ids import Mint
from service.models import base_rows, rows
from service.models.base import Base, BaseRecord
from service.models.bases import Bases
from service.models.budget import Budget
from service.models.model import LoadedModel, Model
from service.models.store import Change, MemoryOnly, Store

Also = Callable[[LoadedModel], Iterable[Change]]
BaseAlso = Callable[[BaseRecord], Iterable[Change]]


class Registry:
    """Models by id, in order of creation; a change swaps one immutable snapshot for the next.

    Readers take no lock: they get a snapshot and keep it. A change is written to the store before anybody sees it. What
    the tensors in memory take is counted in the budget. Where the store has them too, those that have not been used for
    longest make room when all take more than `cache_bytes`; `loaded` reads them back.
    """

    def __init__(
        self,
        max_models: int,
        budget: Budget,
        store: Store | None = None,
        cache_bytes: int = 2**30,
        device: str = "cpu",
    ) -> None:
        self.max_models = max_models
        self.budget = budget
        self.cache_bytes = cache_bytes
        self.device = device
        self._store = store or MemoryOnly()
        self._models: dict[str, Model] = {model.id: model for model in rows.models(self._store)}
        self.new_id = Mint("mdl", self._models)
        self._bases = Bases(base_rows.records(self._store))
        for model in self._models.values():
            self._bases.stand(model.base_id, model.id)
        self._order: OrderedDict[str, None] = OrderedDict()  # of models in memory, the next to go first
        self._touched: set[str] = set()  # of these, since they were last looked at
        self._used = 0  # bytes in memory
        self._lock = threading.RLock()

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
            self._touched.add(model_id)
        return model

    def loaded(self, model_id: str) -> LoadedModel:
        """The model as it is now, with its weights, read from the store where they are not in memory.

        Raises:
            ModelNotFound
            TemporaryReducedCapacity: when there is no memory for the weights.
            StorageUnavailable: when they cannot be read.
        """
        return self.at_hand(model_id) or self._kept(model_id)

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
        with self._lock:
            known = base.id in self._bases
            if known and self._bases.get(base.id).uploaded:
                record = self._bases.get(base.id)
                self._store.write(also(record))
                return record, False
            there = self._bases.at_hand(base.id)
            record = BaseRecord.of(base, self._bases.get(base.id).created_at if known else created_at, uploaded=True)
            size = 0 if self._store.durable or there is not None else base.nbytes
            with self.budget.kept(size):
                changes = base_rows.changed(record) if known else base_rows.added(record, base)
                self._store.write(changes, also(record))
            self._bases.put(record)
            if not self._store.durable:
                self._used += size
                self._bases.hold(there or base)
            return record, not known

    def remove_base(self, base_id: str) -> None:
        """Forget an uploaded base.

        Raises:
            BaseNotFound
            BaseBusy: while models stand on it.
            InsufficientStorage, StorageUnavailable: when that could not be stored.
        """
        with self._lock:
            self._bases.get(base_id)
            self._bases.must_be_free(base_id)
            self._store.write(base_rows.removed(base_id))
            if not self._store.durable:
                self._give(self._bases.let_go(base_id))
            self._bases.drop(base_id)

    def must_have_room(self, count: int = 1) -> None:
        """Raise CapacityExhausted when with so many more there would be more models than there may be."""
        if count and len(self._models) + count > self.max_models:
            raise CapacityExhausted(
                f"there are {len(self._models)} models, and there may be {self.max_models}; "
                "delete some or raise LORA_MAX_MODELS",
                in_use=len(self._models),
                limit=self.max_models,
            )

    def add(self, *models: LoadedModel, also: Iterable[Change] = ()) -> list[LoadedModel]:
        """Take in new models, all or none, and their bases unless those are known; the models as they are kept.

        Args:
            also: what is to be stored in the same transaction.

        Raises:
            CapacityExhausted: when there are too many models, or no bytes left for these.
            InsufficientStorage, StorageUnavailable: when they could not be stored.
        """
        with self._lock:
            self.must_have_room(len(models))
            bases = {model.base_id: self._bases.at_hand(model.base_id) or model.base for model in models}
            kept = [replace(model, base=bases[model.base_id]) for model in models]
            at = {model.base_id: model.created_at for model in models}
            new = {
                base.id: BaseRecord.of(base, at[base.id], uploaded=False)
                for base in bases.values()
                if base.id not in self._bases
            }
            size = self._take(*kept)
            try:
                told = chain.from_iterable(base_rows.added(record, bases[base_id]) for base_id, record in new.items())
                self._store.write(told, *map(rows.added, kept), also)
            except BaseException:
                self.budget.give(size)
                raise
            for record in new.values():
                self._bases.put(record)
            for model in kept:
                self._bases.stand(model.base_id, model.id)
            self._hold(size, *kept)
            return kept

    def swap(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        """Put what is known of a model, changed, in the place of what was known; at once for every reader.

        Raises:
            ModelNotFound
            InsufficientStorage, StorageUnavailable: when it could not be stored.
        """
        with self._lock:
            changed = change(self.get(model_id))
            self._store.write(rows.changed(changed))
            self._models[model_id] = changed
            return changed

    def publish(
        self,
        model_id: str,
        adapter: dict[str, Tensor],
        change: Callable[[Model], Model],
        also: Callable[[Model], Iterable[Change]] = lambda model: (),
    ) -> Model:
        """Put new weights in the place of the old ones, at once for every reader; the new model.

        Where the old ones are on the disk alone, the new ones go there too: this asks for no memory.

        Args:
            change: what else becomes of the model.
            also: what is to be stored in the same transaction.

        Raises:
            as `swap`
        """
        with self._lock:
            changed = change(self.get(model_id))
            self._store.write(rows.changed(changed), rows.weights(model_id, adapter), also(changed))
            if isinstance(changed, LoadedModel):
                changed = replace(changed, adapter=adapter)
            self._models[model_id] = changed
            return changed

    def remove(self, *model_ids: str, also: Iterable[Change] = ()) -> None:
        """Forget models, and the bases on which no other model stands: all or none.

        Args:
            also: what is to be stored in the same transaction.

        Raises:
            ModelNotFound
            InsufficientStorage, StorageUnavailable: when that could not be stored.
        """
        with self._lock:
            models = [self.get(model_id) for model_id in model_ids]
            gone = {model.base_id for model in models if self._bases.without(model.base_id, model_ids)}
            self._store.write(rows.removed(models), chain.from_iterable(map(base_rows.removed, gone)), also)
            for model in models:
                if isinstance(model, LoadedModel):
                    self._let_go(model)
                del self._models[model.id]
                self._bases.leave(model.base_id, model.id)
            for base_id in gone:
                self._bases.drop(base_id)

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
            base = self._bases.at_hand(model.base_id) or base_rows.read(
                self._store, self._bases.get(model.base_id), self.device
            )
            return LoadedModel.of(model, base, rows.adapter(self._store, model_id, self.device))

    def _kept(self, model_id: str) -> LoadedModel:
        with self._lock:
            read = self.read(model_id)
            if self._models[model_id] is not read:
                try:
                    self._hold(self._take(read), read)
                except CapacityExhausted as full:  # of what is not asked for here, so that it may be gone soon
                    raise TemporaryReducedCapacity(full.detail, reason="no-memory", **full.facts) from None
            return read

    def _take(self, *models: LoadedModel) -> int:
        """The bytes that models and their bases take more than is held, once the budget has them and the cache room."""
        while True:
            absent = {model.base_id: model.base for model in models if self._bases.at_hand(model.base_id) is None}
            size = sum(model.nbytes for model in models) + sum(base.nbytes for base in absent.values())
            if self._store.durable and self._used + size > self.cache_bytes and self._unload_one():
                continue
            try:
                self.budget.take(size)
            except CapacityExhausted:
                if not (self._store.durable and self._unload_one()):
                    raise
            else:
                return size

    def _hold(self, size: int, *models: LoadedModel) -> None:
        self._used += size
        for model in models:
            self._bases.hold(model.base)
            self._order[model.id] = None
            self._models[model.id] = model

    def _unload_one(self) -> bool:
        """Leave the weights of a model to the store, the one that has not been used for longest; False without one."""
        while self._order:
            model_id = next(iter(self._order))
            if model_id in self._touched:  # a second chance (the clock algorithm)
                self._touched.discard(model_id)
                self._order.move_to_end(model_id)
                continue
            model = self._models[model_id]
            assert isinstance(model, LoadedModel), "what is in the order is in memory"
            self._let_go(model)
            self._models[model_id] = model.unloaded()
            return True
        return False

    def _let_go(self, model: LoadedModel) -> None:
        """Hold the tensors of a model no longer, and those of its base where no other in memory stands on it."""
        del self._order[model.id]
        self._touched.discard(model.id)
        self._give(model.nbytes + self._bases.let_go(model.base_id))

    def _give(self, size: int) -> None:
        self._used -= size
        self.budget.give(size)
