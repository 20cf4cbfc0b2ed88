"""Which tensors are in memory: those of the models that are used, with their bases, within a number of bytes."""

from collections import OrderedDict

from service.errors import CapacityExhausted
from service.models.bases import Bases
from service.models.budget import Budget
from service.models.model import LoadedModel, Model


class Weights:
    """What the tensors in memory take is counted in the budget, and in `used`; the registry holds the lock.

    Where a store has them too, those that have not been used for longest make room when all take more than
    `cache_bytes`: their models are then known without them.
    """

    def __init__(
        self, models: dict[str, Model], bases: Bases, budget: Budget, cache_bytes: int, *, stored: bool
    ) -> None:
        self.used = 0
        self.touched: set[str] = set()  # models in memory, since they were last looked at
        self._models, self._bases, self._budget = models, bases, budget
        self._cache_bytes, self._stored = cache_bytes, stored
        self._order: OrderedDict[str, None] = OrderedDict()  # of models in memory, the next to go first

    def take(self, *models: LoadedModel, cached: bool = True) -> int:
        """The bytes that models and their bases take more than is held, once the budget has them and the cache room.

        Args:
            cached: whether they are to stay.

        Raises:
            CapacityExhausted: when they are not left, though nothing is in memory that need not be.
        """
        while True:
            absent = {base.id: base for model in models for base in model.bases if self._bases.at_hand(base.id) is None}
            size = sum(model.nbytes for model in models) + sum(base.nbytes for base in absent.values())
            if cached and self._stored and self.used + size > self._cache_bytes and self._unload_one():
                continue
            try:
                self._budget.take(size)
            except CapacityExhausted:
                if not (self._stored and self._unload_one()):
                    raise
            else:
                return size

    def hold(self, size: int, *models: LoadedModel) -> None:
        """Keep models in memory, for which so many bytes were taken."""
        self.used += size
        for model in models:
            self._bases.hold(*model.bases)
            self._order[model.id] = None
            self._models[model.id] = model.ready()

    def let_go(self, model: LoadedModel) -> None:
        """Hold the tensors of a model no longer, and those of its base where no other in memory stands on it."""
        del self._order[model.id]
        self.touched.discard(model.id)
        self.give(model.nbytes + self._bases.let_go(*model.base_ids))

    def give(self, size: int) -> None:
        """So many bytes are held no longer."""
        self.used -= size
        self._budget.give(size)

    def _unload_one(self) -> bool:
        """Leave the weights of a model to the store, the one that has not been used for longest; False without one."""
        while self._order:
            model_id = next(iter(self._order))
            if model_id in self.touched:  # a second chance (the clock algorithm)
                self.touched.discard(model_id)
                self._order.move_to_end(model_id)
                continue
            model = self._models[model_id]
            assert isinstance(model, LoadedModel), "what is in the order is in memory"
            self.let_go(model)
            self._models[model_id] = model.unloaded()
            return True
        return False
