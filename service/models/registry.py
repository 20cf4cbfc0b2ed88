"""The models, keyed by id, as they change: taken in, published anew, removed."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain

from service.errors import CapacityExhausted
from service.ids import Mint
from service.models import base_rows, rows, version_rows
from service.models.base import BaseRecord
from service.models.budget import Budget
from service.models.history import Adapter
from service.models.library import Library
from service.models.model import LoadedModel, Model
from service.models.store import Change, News, Store
from service.models.versions import Version, pruned


class Registry(Library):
    """Models of which a change swaps one immutable snapshot for the next, once the store has been told.

    Beside its current version a model keeps `keep_versions` earlier ones, and the best.
    """

    def __init__(
        self,
        max_models: int,
        budget: Budget,
        store: Store | None = None,
        cache_bytes: int = 2**30,
        device: str = "cpu",
        keep_versions: int = 5,
    ) -> None:
        super().__init__(budget, store, cache_bytes, device)
        self.max_models = max_models
        self.keep_versions = keep_versions
        self.new_id = Mint("mdl", self._models)

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
        with self._store.turn(), self._lock:
            self.must_have_room(len(models))
            bases = {base.id: self._bases.at_hand(base.id) or base for model in models for base in model.bases}
            kept = [replace(model, bases=tuple(bases[base.id] for base in model.bases)) for model in models]
            at = {base_id: model.created_at for model in models for base_id in model.base_ids}
            new = {
                base.id: BaseRecord.of(base, at[base.id], uploaded=False)
                for base in bases.values()
                if base.id not in self._bases
            }
            size = self._weights.take(*kept)
            first = [(model, Version.first(model.created_at), model.adapter) for model in kept]
            try:
                told = chain.from_iterable(base_rows.added(record, bases[base_id]) for base_id, record in new.items())
                versions = (version_rows.added(model.id, version, adapter) for model, version, adapter in first)
                self._store.write(told, *map(rows.changed, kept), *versions, also)
            except BaseException:
                self.budget.give(size)
                raise
            for record in new.values():
                self._bases.put(record)
            for model in kept:
                self._bases.stand(model.base_ids, model.id)
            for model, version, adapter in first:
                self._history.put(model.id, version, adapter)
            self._weights.hold(size, *kept)
            return kept

    def swap(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        """Put what is known of a model, changed, in the place of what was known; at once for every reader.

        Raises:
            ModelNotFound
            InsufficientStorage, StorageUnavailable: when it could not be stored.
        """
        with self._store.turn(), self._lock:
            changed = change(self.get(model_id))
            self._store.write(rows.changed(changed))
            self._models[model_id] = changed
            return changed

    def publish(
        self,
        model_id: str,
        adapter: Adapter,
        next_of: Callable[[Model], Version],
        also: Callable[[Model], Iterable[Change]] = lambda model: (),
    ) -> Model:
        """Put new weights in the place of the old ones, at once for every reader; the new model.

        Where the old ones are on the disk alone, the new ones go there too, and where there is no memory for one
        version more, an old one goes: this never fails for want of memory.

        Args:
            next_of: the version that these weights are.
            also: what is to be stored in the same transaction.

        Raises:
            as `swap`
        """
        with self._store.turn(), self._lock:
            model = self.get(model_id)
            version = next_of(model)
            marks = pruned(model.kept, version.mark, self.keep_versions)
            with self._history.room(model, *marks) as (kept, dropped):
                changed = model.published(version, kept)
                gone = version_rows.dropped(model_id, dropped)
                self._store.write(
                    rows.changed(changed), version_rows.added(model_id, version, adapter), gone, also(changed)
                )
            self._history.put(model_id, version, adapter, dropped)
            if isinstance(changed, LoadedModel):
                changed = replace(changed, adapter=adapter).ready()
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
        with self._store.turn(), self._lock:
            models = [self.get(model_id) for model_id in model_ids]
            gone = {
                base_id for model in models for base_id in model.base_ids if self._bases.without(base_id, model_ids)
            }
            self._store.write(rows.removed(models), chain.from_iterable(map(base_rows.removed, gone)), also)
            for model in models:
                self._forget(model)
            for base_id in gone:
                self._bases.drop(base_id)

    def learn(self, news: News) -> list[str]:
        """Take in what other servers did to models and bases; the ids of the models that are gone by that."""
        with self._lock:
            records = {
                record.id: record for record in base_rows.records(self._store, id=news.of("bases", self._bases.ids))
            }
            ids = news.of("models", self._models)
            found = {model.id: model for model in rows.models(self._store, id=ids)}
            for record in records.values():
                self._bases.put(record)
            for model in found.values():
                self._know(model)
            gone = [self._models[model_id] for model_id in ids if model_id not in found and model_id in self._models]
            for model in gone:
                self._forget(model)
            for base_id in news.of("bases", self._bases.ids):
                if base_id not in records and base_id in self._bases:
                    self._bases.drop(base_id)
            return [model.id for model in gone]

    def _know(self, model: Model) -> None:
        """Put what is known of a model now in the place of what was; other weights are read when they are asked for."""
        known = self._models.get(model.id)
        if known is None:
            self._bases.stand(model.base_ids, model.id)
            self.new_id.saw(model.id)
        elif isinstance(known, LoadedModel) and known.version == model.version:
            model = known.known_as(model)
        elif isinstance(known, LoadedModel):
            self._weights.let_go(known)
        self._models[model.id] = model

    def _forget(self, model: Model) -> None:
        if isinstance(model, LoadedModel):
            self._weights.let_go(model)
        self._history.forget(model)
        del self._models[model.id]
        self._bases.leave(model.base_ids, model.id)
