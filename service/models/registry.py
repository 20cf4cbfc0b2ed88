"""The models, keyed by id: what is known of them in memory, their weights in memory or on the disk."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain

from torch import Tensor

from service.errors import CapacityExhausted, ModelNotFound, TemporaryReducedCapacity
from service.ids import Mint
from service.models import base_rows, rows
from service.models.base import BaseRecord
from service.models.budget import Budget
from service.models.ground import Ground
from service.models.model import LoadedModel, Model
from service.models.store import Change, MemoryOnly, Store


class Registry(Ground):
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
        super().__init__(rows.models(store or MemoryOnly()), budget, store, cache_bytes, device)
        self.max_models = max_models
        self.new_id = Mint("mdl", self._models)

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

    def loaded(self, model_id: str) -> LoadedModel:
        """The model as it is now, with its weights, read from the store where they are not in memory.

        Raises:
            ModelNotFound
            TemporaryReducedCapacity: when there is no memory for the weights.
            StorageUnavailable: when they cannot be read.
        """
        return self.at_hand(model_id) or self._kept(model_id)

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
            size = self._weights.take(*kept)
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
            self._weights.hold(size, *kept)
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
                    self._weights.let_go(model)
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
                    self._weights.hold(self._weights.take(read), read)
                except CapacityExhausted as full:  # of what is not asked for here, so that it may be gone soon
                    raise TemporaryReducedCapacity(full.detail, reason="no-memory", **full.facts) from None
            return read
