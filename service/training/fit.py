"""Train the adapters of layers that are alike side by side: a generator that yields after each step."""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.lora.chain import LoRAChain
from service.training.arrays import backend_of
from service.training.cost import OPTIMUM_FEATURES
from service.training.lesson import Fitted, Lesson
from service.training.moments import LOST, Moments, Residual, best_losses, gather, residual
from service.training.plan import Path
from service.training.rows import Rows
from service.training.stack import BURST_EPOCHS, Stack
from service.training.state import State

FLOAT32_DIGITS = 1e-6  # a loss by rows is a sum of numbers with seven digits


class Diverged(Exception):
    """A loss or a weight is no longer finite as float32."""


@dataclass(frozen=True, eq=False)
class Epochs:
    """What one epoch, or a burst of short ones, brought the runs that were still there.

    `curves` has (epochs, runs) numbers under `losses`, and where they exist `validation_losses`, `accuracies` and
    `validation_accuracies`. `state(run)` is a run as it stands; ask before the next step.
    """

    runs: Sequence[int]
    curves: Mapping[str, NDArray[np.float64]]
    state: Callable[[int], State]


@dataclass(frozen=True, eq=False)
class Ended:
    """A run is over."""

    run: int
    outcome: Fitted | Diverged


Told = Epochs | Ended | None
T = TypeVar("T")
Leave = Collection[int] | None
Steps = Generator[Told, Leave, None]


def fit(lessons: Sequence[Lesson], burst: int = BURST_EPOCHS) -> Steps:
    """Train a copy of each layer's adapter; the given layers stay as they are.

    The lessons are alike (see `together.likeness`); a run's number is its place among them. Yields None after each
    step (or burst of steps that are each an epoch), then Epochs when epochs are done, and Ended once for each run. What
    is sent into the generator are the numbers of runs to leave. An epoch's loss is the mean over its rows, each batch
    measured before its own update.

    Args:
        burst: how many short epochs may pass before they are told of.
    """
    path = lessons[0].plan.path or "batch"
    late = [lesson if lesson.state is not None and lesson.state.path != path else None for lesson in lessons]
    left: set[int] = set()
    there = [run for run, lesson in enumerate(late) if lesson is None]
    if there:
        yield from _fit([lessons[run] for run in there], there, path, late, left, burst)
    for run, lesson in enumerate(late):  # its moments had no digits left, so it goes on with its rows, by itself
        if lesson is not None and run not in left:
            yield from _fit([lesson], [run], "batch", late, left, burst)


def fit_one(lesson: Lesson) -> Fitted:
    """Train one layer to the end.

    Raises:
        Diverged: when an epoch's loss, or a weight after it, is not finite as float32.
    """
    outcome = next(told.outcome for told in fit([lesson]) if isinstance(told, Ended))
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


def _fit(
    lessons: Sequence[Lesson],
    numbers: Sequence[int],
    path: Path,
    late: list[Lesson | None],
    left: set[int],
    burst: int,
) -> Steps:
    """Train by one path; lessons that it cannot bring to their end are put in `late`, from where they stand."""
    if path == "moments":
        lessons = yield from _quietly(_gathered(lessons), left)
    while numbers:
        course = _Course(lessons, numbers, left, Stack(lessons, path, burst))
        yield from course.run()
        # Where half of them are gone, the others go on with a stack of their own.
        rest = [(place, course.stack.state(place)) for place in course.stack.places]
        for place, state in [*course.stack.late, *((place, state) for place, state in rest if state.path != path)]:
            late[numbers[place]] = replace(lessons[place], state=state)
        rest = [(place, state) for place, state in rest if state.path == path]
        lessons, numbers = (
            [replace(lessons[place], state=state) for place, state in rest],
            [numbers[place] for place, _ in rest],
        )


class _Course:
    """What is told of a stack: the runs have numbers outside, and places in the stack."""

    def __init__(self, lessons: Sequence[Lesson], numbers: Sequence[int], left: set[int], stack: Stack) -> None:
        self.lessons, self.numbers, self.left, self.stack = lessons, numbers, left, stack
        self._place_of = {number: place for place, number in enumerate(numbers)}

    def run(self) -> Steps:
        """Train until all runs are over, or half of them."""
        stack = self.stack
        self._leave()
        yield from self._end(stack.stopped & stack.alive)
        while stack.goes_on and 2 * len(stack.places) > len(self.lessons):
            ended = yield from _quietly(stack.epochs(), self.left)
            self._leave()
            if ended:
                yield from self._diverged()
                self._leave()
            if stack.places:
                self.left.update((yield self._epochs()) or ())
                self._leave()
            if ended:
                yield from self._end(stack.stopped & stack.alive)
        if not stack.goes_on:
            yield from self._end(stack.alive.copy())

    def _epochs(self) -> Epochs:
        here, latest = self.stack.places, self.stack.latest
        if len(here) == len(self.lessons):
            return Epochs(self.numbers, dict(latest), self._state)
        curves = {name: numbers[:, here] for name, numbers in latest.items()}
        return Epochs([self.numbers[place] for place in here], curves, self._state)

    def _end(self, places: NDArray[np.bool_]) -> Steps:
        """Bring some runs to their end."""
        if not places.any():
            return
        known: Sequence[Residual | None] = self.stack.residuals or [None] * len(self.lessons)
        for fitted in (yield from _quietly(self.stack.finish(places), self.left)):
            gap = yield from _quietly(_gap(self.lessons[fitted.run], known[fitted.run], fitted), self.left)
            run = self.numbers[fitted.run]
            yield from self._tell(Ended(run, replace(fitted, run=run, metrics={**fitted.metrics, **gap})))
        yield from self._diverged()

    def _diverged(self) -> Steps:
        for place in np.flatnonzero(self.stack.diverged).tolist():
            yield from self._tell(Ended(self.numbers[place], Diverged()))

    def _tell(self, told: Ended) -> Steps:
        if told.run not in self.left:
            self.left.update((yield told) or ())

    def _leave(self) -> None:
        gone = [self._place_of[number] for number in self.left & self._place_of.keys()]
        if gone:
            self.stack.alive = self.stack.alive & ~np.isin(np.arange(len(self.lessons)), gone)

    def _state(self, number: int) -> State:
        return self.stack.state(self._place_of[number])


def _quietly(steps: Generator[None, None, T], left: set[int]) -> Generator[Told, Leave, T]:
    """Go through steps without numpy's warnings of overflow, which is looked for once an epoch."""
    while True:
        with np.errstate(all="ignore"):
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
        left.update((yield None) or ())


def _gathered(lessons: Sequence[Lesson]) -> Generator[None, None, list[Lesson]]:
    """The lessons with the moments of their rows; lessons that share rows share moments."""
    known: dict[int, Moments] = {}

    def of(rows: Rows | None, there: Moments | None) -> Generator[None, None, Moments | None]:
        if there is not None or rows is None:
            return there
        if id(rows) not in known:
            known[id(rows)] = yield from gather(backend_of(rows.x), rows.x, rows.y, rows.weight)
        return known[id(rows)]

    gathered = []
    for lesson in lessons:
        moments = yield from of(lesson.rows, lesson.moments)
        validation = yield from of(lesson.validation, lesson.validation_moments)
        gathered.append(replace(lesson, moments=moments, validation_moments=validation))
    return gathered


def _gap(
    lesson: Lesson, known: Residual | None, fitted: Fitted
) -> Generator[None, None, dict[str, float | str | None]]:
    """How near the run came to the best adapter of its rank, or why nobody knows."""
    plan, layer = lesson.plan, lesson.layer
    if plan.loss != "mse" or plan.batch_size is not None:
        return _unknown("the optimum is known for mse in full batches alone")
    if isinstance(layer, LoRAChain):
        return _unknown("the optimum is not known for a chain of layers")
    backend = backend_of(layer.weight)
    if layer.magnitude is not None:
        return _unknown("the optimum is not known for a layer with a magnitude (use_dora)")
    if known is None:
        moments = lesson.moments
        if moments is None and layer.weight.shape[1] > OPTIMUM_FEATURES:
            return _unknown(f"the layer has more than {OPTIMUM_FEATURES} in_features")
        if moments is None:
            assert lesson.rows is not None, "what has no moments has rows"
            moments = yield from gather(backend, lesson.rows.x, lesson.rows.y, lesson.rows.weight)
        known = residual(backend, moments, layer)
    optimum = best_losses(known, bias_is_free=layer.own_bias is not None)[layer.rank]
    first = float(fitted.state.arrays["curves.losses"][0])
    # What is less than the digits of the losses is nothing.
    exact = LOST * max(known.largest, 4 * known.tt) / len(layer.B)
    digits = exact if plan.path == "moments" else FLOAT32_DIGITS * first
    to_gain = first - optimum
    gap = (first - fitted.metrics["final_loss"]) / to_gain if to_gain > digits else 1.0
    return {"optimum_loss": optimum, "gap_closed": gap}


def _unknown(reason: str) -> dict[str, float | str | None]:
    return {"optimum_loss": None, "gap_closed": None, "optimum_unknown": reason}
