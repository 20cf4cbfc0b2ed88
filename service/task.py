"""A task as it travels: what jobs are to learn, trained on, and told as it goes; whoever is told may be anywhere."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.lora.chain import LoRAChain, Trainable
from service.lora.layer import LoRALinear
from service.lora.names import by_layer
from service.training import datasets
from service.training.arrays import backend_of
from service.training.fit import Diverged, Ended, Epochs, Steps, fit, fit_one
from service.training.lesson import Fitted, Lesson
from service.training.moments import Moments, given_moments
from service.training.plan import Plan, from_dict
from service.training.rows import Rows
from service.training.sources import Source, has_rows
from service.training.state import State, as_parts, continued, from_parts

REPORT_SECONDS = 0.02  # finished epochs are told together when they come faster than this
OF_A_LAYER = "layer."  # what the names of its tensors begin with in a task

Message = tuple[dict[str, Any], dict[str, NDArray[Any]]]

log = logging.getLogger(__name__)


class Say(Protocol):
    """Tell whoever gave the task."""

    def __call__(self, value: dict[str, Any], arrays: dict[str, NDArray[Any]] | None = None) -> None: ...


class Orders:
    """What whoever gave a task wants of it meanwhile; heard by one thread while another trains."""

    def __init__(self) -> None:
        self._cancelled: set[str] = set()
        self.pausing = False  # whether the task is to stop where it can go on later

    def hear(self, order: dict[str, Any]) -> bool:
        """Take in what is wanted; False for what is no order, but a task."""
        if order["do"] == "cancel":
            self._cancelled.add(order["job"])
        elif order["do"] == "pause":
            self.pausing = True
        else:
            return False
        return True

    def cancelled(self) -> list[str]:
        """The jobs that are no longer wanted and were not asked for yet."""
        return [self._cancelled.pop() for _ in range(len(self._cancelled))]


def perform(
    task: Message,
    device: str,
    cancelled: Callable[[], Collection[str]],
    say: Say,
    pausing: Callable[[], bool] = lambda: False,
) -> None:
    """Train as the task says, telling of finished epochs as they come, of how each job ended, and that it is done."""
    header, arrays = task
    going = {told["job"]: None for told in header["jobs"]}  # whose end has not been told
    try:
        lessons = prepare(header["jobs"], {name: torch.from_numpy(array) for name, array in arrays.items()}, device)
        follow(fit(lessons), going, cancelled, say, header.get("checkpoint_seconds"), pausing)
    except Exception as error:
        if not out_of_memory(error):
            log.exception("a training broke")
            say(failure(going, "internal-error", "the training broke inside the service; the log holds its trace"))
        else:
            say(
                failure(going, "out-of-memory", "the training did not fit in memory; fewer rows or a smaller layer may")
            )
    say({"say": "done"})


def prepare(jobs: Sequence[dict[str, Any]], tensors: dict[str, Tensor], device: str) -> list[Lesson]:
    """What each job learns from, on the device; jobs share the tensors and rows that are the same."""
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    known: dict[Any, tuple[Rows | None, Moments | None]] = {}

    def learned_from(source: Source, layer: Trainable, sent: dict[str, Tensor]) -> tuple[Rows | None, Moments | None]:
        key = (source, *(id(each.weight) for each in layer.layers), *(id(tensor) for tensor in sent.values()))
        if key not in known:
            rows = datasets.load(source, layer, sent) if has_rows(source) else None
            known[key] = rows, given_moments(backend_of(layer.layers[0].weight), sent)
        return known[key]

    def lesson(job: dict[str, Any]) -> Lesson:
        own: dict[str, Any] = {name: placed[key] for name, key in job["tensors"].items()}
        data, held_out = (
            {name.removeprefix(kind): own[name] for name in own if name.startswith(kind)}
            for kind in ("data.", "validation.")
        )
        layer, plan = learner(job, own), from_dict(job["plan"])
        rows, moments = learned_from(plan.data, layer, data)
        validation, validation_moments = None, None
        if plan.n_validation and rows is not None:
            rows, validation = datasets.split(rows, plan.n_validation, datasets.drawn(plan.seed))
            moments = None  # those of all rows
        elif plan.held_out is not None:
            validation, validation_moments = learned_from(plan.held_out, layer, held_out)
        state = None
        if "state" in job:
            arrays = {name.removeprefix("state."): own[name].cpu().numpy() for name in own if name.startswith("state.")}
            state = from_parts(job["state"], arrays)
        return Lesson(layer, plan, rows, moments, validation, validation_moments, job["dropout"], state)

    return [lesson(job) for job in jobs]


def learner(job: dict[str, Any], tensors: Mapping[str, Any]) -> Trainable:
    """What a job trains: each layer from its settings and its tensors."""
    own = {name.removeprefix(OF_A_LAYER): tensor for name, tensor in tensors.items() if name.startswith(OF_A_LAYER)}
    parts = zip(job["layers"], by_layer(own, len(job["layers"])), strict=True)
    layers = tuple(LoRALinear(**{"bias": None, **settings, **part}) for settings, part in parts)
    return layers[0] if len(layers) == 1 else LoRAChain(layers, tuple(job["activations"]))


def follow(
    steps: Steps,
    going: dict[str, None],
    cancelled: Callable[[], Collection[str]],
    say: Say,
    checkpoint_seconds: float | None = None,
    pausing: Callable[[], bool] = lambda: False,
) -> None:
    """Drive runs to their ends, which leave `going` as they are told; losses are told as they come.

    A run that is cancelled is left after the step that it is at, and no more is said of it. Where there are
    `checkpoint_seconds`, the runs' states are told after the first epoch that ends so long after the last telling; when
    they are `pausing`, after the next one, with which they are left.
    """
    jobs = list(going)
    checkpoint_due = inf if checkpoint_seconds is None else time.monotonic() + checkpoint_seconds
    untold: list[Epochs] = []
    due = time.monotonic() + REPORT_SECONDS

    def tell_epochs() -> None:
        if untold:
            curves = {name: np.concatenate([epochs.curves[name] for epochs in untold]) for name in untold[0].curves}
            say({"say": "epochs", "jobs": [jobs[run] for run in untold[0].runs]}, curves)
            untold.clear()

    left: set[int] = set()
    try:
        told = next(steps)
        while True:
            if isinstance(told, Epochs):
                if untold and untold[0].runs != told.runs:
                    tell_epochs()
                untold.append(told)
                leaving = pausing()
                if leaving or time.monotonic() >= checkpoint_due:
                    tell_epochs()
                    for run in told.runs:
                        if jobs[run] in going:
                            tell_state(jobs[run], "checkpoint", told.state(run), say)
                    checkpoint_due = time.monotonic() + (checkpoint_seconds or 0)
                if leaving:
                    return
            elif isinstance(told, Ended) and told.run not in left:
                tell_epochs()
                tell_end(jobs[told.run], told.outcome, say)
                del going[jobs[told.run]]
            if untold and time.monotonic() >= due:
                tell_epochs()
                due = time.monotonic() + REPORT_SECONDS
            for job in going.keys() & set(cancelled()):
                left.add(jobs.index(job))
                del going[job]
            if not going:
                return
            told = steps.send(left)
    except StopIteration:
        pass
    finally:
        tell_epochs()


def tell_end(job: str, outcome: Fitted | Diverged, say: Say) -> None:
    """Say what became of one job."""
    if isinstance(outcome, Diverged):
        detail = "a loss or a weight is no longer finite as float32; a lower lr or smaller inputs may help"
        say(failure([job], "diverged", detail))
    else:
        adapter = {name: tensor.cpu().numpy() for name, tensor in outcome.layer.adapter().items()}
        tell_state(job, "succeeded", continued(outcome.state, outcome.state.path), say, outcome.metrics, adapter)


def tell_state(
    job: str,
    what: str,
    state: State,
    say: Say,
    metrics: Mapping[str, Any] | None = None,
    adapter: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Say where one job stands, or how it ended."""
    facts, arrays = as_parts(state)
    told = {"say": what, "job": job, "metrics": dict(metrics or {}), "state": facts}
    say(told, {**(adapter or {}), **{f"state.{name}": array for name, array in arrays.items()}})


def failure(jobs: Iterable[str], reason: str, detail: str) -> dict[str, Any]:
    """The message that ends jobs which went wrong."""
    return {"say": "failed", "jobs": list(jobs), "reason": reason, "detail": detail}


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; on the CPU torch says so with a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def warm_up() -> None:
    """Train once in small, so that the first task does not wait for what torch sets up on first use."""
    layer = LoRALinear(torch.zeros(2, 2), None, torch.zeros(1, 2), torch.zeros(2, 1), scaling=1.0)
    for path in ("moments", "batch"):
        fit_one(Lesson(layer, Plan(epochs=1, seed=0, path=path), Rows(torch.zeros(2, 2), torch.zeros(2, 2))))
