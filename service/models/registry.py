"""The state in memory: models and their bases, keyed by id."""

import threading
from collections.abc import Callable
from dataclasses import replace

from service.errors import BaseNotFound, CapacityExhausted, ModelNotFound
from service.models.budget import Budget
from service.models.model import Base, Model


class Registry:
    """Models by id, in order of creation; a change swaps one immutable snapshot for the next.

    Readers take no lock: they get a snapshot and keep it. What the tensors take is counted
    in the budget for as long as they are here.
    """

    def __init__(self, max_models: int, budget: Budget) -> None:
        self.max_models = max_models
        self.budget = budget
        self._models: dict[str, Model] = {}
        self._bases: dict[str, Base] = {}
        self._users: dict[str, int] = {}  # models on each base
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._models

    @property
    def bases(self) -> int:
        """How many bases there are."""
        return len(self._bases)

    def all(self) -> list[Model]:
        """Every model, oldest first."""
        with self._lock:
            return list(self._models.values())

    def get(self, model_id: str) -> Model:
        """The model as it is now.

        Raises:
            ModelNotFound
        """
        try:
            return self._models[model_id]
        except KeyError:
            raise ModelNotFound(f"there is no model {model_id}; GET /models lists those there are") from None

    def base(self, base_id: str) -> Base:
        """The base with this id.

        Raises:
            BaseNotFound
        """
        try:
            return self._bases[base_id]
        except KeyError:
            raise BaseNotFound(f"there is no base {base_id}; a base goes with its last model") from None

    def must_have_room(self) -> None:
        """Raise CapacityExhausted when there are as many models as there may be."""
        if len(self._models) >= self.max_models:
            raise CapacityExhausted(
                f"there are {len(self._models)} models, as many as there may be; delete some or raise LORA_MAX_MODELS",
                in_use=len(self._models),
                limit=self.max_models,
            )

    def add(self, model: Model) -> Model:
        """Take in a new model, and its base unless that is known; the model as it is kept.

        Raises:
            CapacityExhausted: when there are too many models, or no bytes left for this one.
        """
        with self._lock:
            self.must_have_room()
            known = self._bases.get(model.base.id)
            self.budget.take(model.nbytes + (0 if known else model.base.nbytes))
            kept = model if known is None else replace(model, base=known)
            self._bases[kept.base.id] = kept.base
            self._users[kept.base.id] = self._users.get(kept.base.id, 0) + 1
            self._models[kept.id] = kept
            return kept

    def swap(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        """Put the changed model in the place of the old one, at once for every reader; the new one.

        Raises:
            ModelNotFound
        """
        with self._lock:
            changed = change(self.get(model_id))
            self._models[model_id] = changed
            return changed

    def remove(self, model_id: str) -> None:
        """Forget a model, and its base when no other model stands on it.

        Raises:
            ModelNotFound
        """
        with self._lock:
            model = self.get(model_id)
            base = model.base
            del self._models[model_id]
            self._users[base.id] -= 1
            last = not self._users[base.id]
            if last:
                del self._users[base.id], self._bases[base.id]
            self.budget.give(model.nbytes + (base.nbytes if last else 0))
