"""Forward passes: on the spot where the product is cheaper than a hop to a thread, else in batches."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from math import inf

from service.codecs.codec import Answer, Array
from service.engine.capacity import Capacity
from service.errors import CapacityExhausted, Fault, LimitExceeded, TemporaryReducedCapacity
from service.lora.grouped import fetched, placed, quietly
from service.lora.spec import FLOAT32_BYTES
from service.models.budget import Budget
from service.models.model import LoadedModel, Model
from service.models.registry import Registry
from service.serving.batcher import Batcher, too_late
from service.serving.merged import Merged
from service.serving.passes import one_pass

# Up to so many multiplications are done before a thread could be asked.
SPOT = 2**19


class Forwards:
    """Runs models. `count` and `rows` are those that were answered.

    Each answer comes from one published version of its model: the one it names.
    """

    def __init__(self, registry: Registry, capacity: Capacity, budget: Budget) -> None:
        self.count = self.rows = 0
        self.batcher = Batcher(capacity.window)
        self.merged = Merged(capacity.merged_bytes)
        self._registry = registry
        self._budget = budget
        self._max_bytes = capacity.forward_bytes

    def on_the_spot(self, model: LoadedModel, x: Array) -> bool:
        """Whether a forward is done sooner than a thread could begin with it."""
        return max(x.size // model.spec.in_features, 1) * model.row_cost <= SPOT

    def run(self, model: LoadedModel, x: Array) -> Answer:
        """The model's outputs (…, out) for inputs (…, in).

        Raises:
            LimitExceeded: when the outputs would be too large.
        """
        rows = self._checked(model, x)
        # An earlier version would drive the current one from its place among those that are merged.
        hot = self.on_the_spot(model, x) and self._registry.is_current(model)
        maps = self.merged.of(model.id, model.maps) if hot else model.maps
        y = fetched(quietly(maps, placed(x if x.ndim == 2 else x.reshape(rows, x.shape[-1]), maps.weight)))
        return self.answer(model, x, y)

    def run_all(self, items: Sequence[tuple[LoadedModel, Array]]) -> list[Answer]:
        """The same for inputs of many models, with one pass over each base.

        Raises:
            LimitExceeded: when the outputs together would be too large.
        """
        numbers = sum(self._rows(model, x) * model.widest for model, x in items)
        if FLOAT32_BYTES * numbers > self._max_bytes:
            raise self._too_large(numbers, "all items", "/items")
        on_base: dict[str, list[int]] = {}
        for at, (model, _) in enumerate(items):
            on_base.setdefault(model.ground, []).append(at)
        answers: dict[int, Answer] = {}
        for places in on_base.values():
            requests = [(model.maps, x.reshape(-1, x.shape[-1])) for model, x in (items[at] for at in places)]
            for at, y in zip(places, one_pass(requests), strict=True):
                answers[at] = self.answer(*items[at], y)
        return [answers[at] for at in range(len(items))]

    def must_begin(self, model: Model, wait_seconds: float) -> None:
        """Raise TemporaryReducedCapacity where a forward that `submit` were given now would not begin in time."""
        if self.batcher.crowded(model.ground, wait_seconds):
            raise too_late(wait_seconds)

    def submit(self, model: LoadedModel, x: Array, wait_seconds: float = inf) -> "Future[Array]":
        """The outputs (rows, out) for `answer`, from a thread: in one pass with others that wait for the same base.

        Args:
            wait_seconds: how long it may take until it begins.

        Raises:
            LimitExceeded
            TemporaryReducedCapacity: when there is no memory for the rows and their outputs; in the future, when it
                could not begin in time.
        """
        rows = self._checked(model, x)
        held = x.nbytes + FLOAT32_BYTES * rows * model.spec.out_features
        try:
            self._budget.take(held)
        except CapacityExhausted as full:  # others' rows go soon
            detail = f"there is no memory for this forward now, so try again: {full.detail}"
            raise TemporaryReducedCapacity(detail, reason="no-memory", **full.facts) from None
        try:
            outputs = self.batcher.submit(
                model.ground, model.maps, x.reshape(rows, x.shape[-1]), time.monotonic() + wait_seconds
            )
        except BaseException:
            self._budget.give(held)
            raise
        outputs.add_done_callback(lambda _: self._budget.give(held))
        return outputs

    def answer(self, model: LoadedModel, x: Array, y: Array) -> Answer:
        """What is told of the outputs y (rows, out) for inputs x (…, in)."""
        self.count += 1
        self.rows += len(y)
        return Answer(y if x.ndim == 2 else y.reshape(*x.shape[:-1], y.shape[1]), model.id, model.version)

    def forget(self, model_id: str) -> None:
        """Drop what is kept for a model."""
        self.merged.forget(model_id)

    def close(self) -> None:
        """Compute no more in threads."""
        self.batcher.close()

    def _rows(self, model: LoadedModel, x: Array) -> int:
        return x.size // model.spec.in_features

    def _checked(self, model: LoadedModel, x: Array) -> int:
        """How many rows there are; LimitExceeded where their outputs would be too large."""
        rows = self._rows(model, x)
        if FLOAT32_BYTES * rows * model.spec.out_features > self._max_bytes:
            raise self._too_large(rows * model.spec.out_features, f"{rows} rows", "/inputs")
        return rows

    def _too_large(self, numbers: int, of: str, pointer: str) -> LimitExceeded:
        needed = FLOAT32_BYTES * numbers
        detail = f"the outputs of {of} take {needed} bytes; at most {self._max_bytes} are allowed"
        return LimitExceeded(
            f"{detail}, so send fewer rows at a time",
            Fault(pointer, detail),
            bytes_needed=needed,
            bytes_allowed=self._max_bytes,
        )
