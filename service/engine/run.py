"""One training job between the engine and the worker that has it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.clock import instant
from service.codecs.message import Arrays
from service.engine.states import States
from service.errors import (
    InsufficientStorage,
    JobNotFound,
    NotFound,
    ServiceError,
    StateGone,
    StorageUnavailable,
)
from service.jobs.job import Job
from service.jobs.ledger import Ledger
from service.jobs.state import State as JobState
from service.lora.names import named
from service.lora.spec import AnySpec
from service.models import job_rows
from service.models.model import LoadedModel
from service.models.registry import Registry
from service.models.store import Change, Store
from service.training.cost import bytes_stacked, step_cost
from service.training.plan import Plan, as_dict
from service.training.state import State, as_parts, continued, from_parts
from service.training.together import likeness

RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


class Held:
    """Rows that came with a request, counted until the last of the runs that need them has ended."""

    def __init__(self, arrays: Arrays, users: int = 1, id: str | None = None) -> None:
        self.arrays = arrays
        self.id = id if arrays else None  # in the store
        self._users = users
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """What the rows take."""
        return sum(array.nbytes for array in self.arrays.values())

    def release(self) -> int:
        """One user less; the bytes that nobody needs any longer."""
        with self._lock:
            self._users -= 1
            return 0 if self._users else self.nbytes


@dataclass(frozen=True)
class Books:
    """Where runs look things up and write them down; `leaving` says that the service is shutting down."""

    registry: Registry
    ledger: Ledger
    states: States
    store: Store
    leaving: Callable[[], bool] = lambda: False


class Run:
    """What a worker is told of a job, and what becomes of the worker's answers.

    The key of a run is its model: the runs of one model follow one another, each from the version it finds. Runs of
    one `likeness` may be stacked; `bytes_stacked` and `step_cost` are what this one then takes of a worker.
    """

    def __init__(
        self,
        job_id: str,
        key: str,
        plan: Plan,
        spec: AnySpec,
        held: Held,
        stored: Arrays,
        books: Books,
        group: str = "",
        reached: State | None = None,
        owner: str = "",
    ) -> None:
        self.job_id = job_id
        self.key = key
        self.likeness = likeness(plan, spec), 0 if reached is None else reached.epoch
        self.bytes_stacked = bytes_stacked(plan, spec)
        self.step_cost = step_cost(plan, spec)
        self.group = group or job_id
        self.owner = owner
        self._held = held
        self._rows = {**held.arrays, **stored}
        self._reached = reached
        self._books = books
        self._registry, self._ledger, self._states = books.registry, books.ledger, books.states

    def release(self) -> int:
        """The bytes of rows that nobody needs any longer when this run has ended."""
        size = self._held.release()
        if size and self._held.id is not None and not self._goes_on:
            with suppress(ServiceError):  # a start drops them again
                self._books.store.write(job_rows.needless([self._held.id]))
        return size

    @property
    def _goes_on(self) -> bool:
        """Whether the service is shutting down, so that what has not ended goes on from the store."""
        return self._books.store.durable and self._books.leaving()

    def begin(self, together: int) -> tuple[dict[str, Any], Arrays] | None:
        """Mark the job as running; its plan, layer and rows. None when it has ended meanwhile, or is to wait."""
        if self._goes_on:
            return None
        try:
            job = self._ledger.swap(self.job_id, lambda job: _begun(job, together))
            model = self._model()
        except NotFound:
            return None
        if job.state is not JobState.RUNNING or model is None:
            return None
        layer = model.layer
        header = {
            "job": self.job_id,
            "plan": as_dict(job.plan),
            "layers": [{"scaling": each.scaling, "frozen_rank": each.frozen_rank} for each in layer.layers],
            "activations": layer.activations,
            "dropout": model.spec.dropout,
        }
        try:
            start = self._start(job.plan)
        except StateGone as gone:  # dropped for newer ones while this job waited
            self.failed("state-gone", gone.detail)
            return None
        state: Arrays = {}
        if start is not None:
            header["state"], arrays = as_parts(start)
            state = {f"state.{name}": array for name, array in arrays.items()}
        return header, {
            **state,
            **{
                f"layer.{name}": tensor.cpu().numpy()
                for name, tensor in named([each.tensors() for each in layer.layers]).items()
            },
            **self._rows,
        }

    def _model(self) -> LoadedModel | None:
        """The model with its weights; a store that does not answer is waited for, as long as the job is wanted."""
        while not (self._goes_on or self._ledger.get(self.job_id).state.terminal):
            try:
                return self._registry.read(self.key)
            except StorageUnavailable as error:
                log.warning("job %s waits for the weights of its model: %s", self.job_id, error.detail)
                time.sleep(RETRY_SECONDS)
        return None

    def _start(self, plan: Plan) -> State | None:
        """The state that the run goes on from, where it does: its own from before a restart, or an earlier job's."""
        if self._reached is not None or plan.continue_from is None:
            return self._reached
        return continued(self._states.get(plan.continue_from), plan.path or "batch")

    def progressed(self, curves: dict[str, list[float]]) -> None:
        """More epochs are done."""
        self._change(lambda job: job.progressed(curves))

    def checkpoint(self, facts: dict[str, Any], arrays: Arrays) -> None:
        """Store where the run stands; where that fails, an earlier place or the start has to do."""
        state = from_parts(facts, {name.removeprefix("state."): array for name, array in arrays.items()})

        def stored(job: Job) -> Job:
            self._books.store.write(self._row(job), job_rows.reached(self.job_id, state))
            return job

        try:  # in the ledger's turn, so that no end of the job comes between
            self._ledger.swap(self.job_id, stored)
        except JobNotFound:  # cancelled, and forgotten
            pass
        except ServiceError as error:
            log.warning("where job %s stands cannot be stored: %s", self.job_id, error.detail)

    def succeeded(self, metrics: dict[str, Any], facts: dict[str, Any], arrays: Arrays) -> None:
        """Publish the weights as the model's next version, with which the job has succeeded, and keep its state."""
        of_state = [name for name in arrays if name.startswith("state.")]
        kept = {name.removeprefix("state."): np.array(arrays.pop(name)) for name in of_state}
        state = from_parts(facts, kept)
        with suppress(NotFound):  # deleted meanwhile, and the job cancelled by that
            device = self._registry.device
            # Copied here, where no reader waits for a lock.
            adapter = {name: torch.from_numpy(np.array(array)).to(device) for name, array in arrays.items()}
            self._change(lambda job: self._published(job, metrics, adapter, state))

    def failed(self, reason: str, detail: str) -> None:
        """The training went wrong; the model keeps the version it had.

        While the service leaves, workers are ended, and what the store has goes on after the next start.
        """
        if self._goes_on:
            return

        def failed(job: Job) -> Job:
            over = job.moved(JobState.FAILED, instant(), reason, detail=detail)
            self._books.store.write(job_rows.ended(over))
            return over

        self._change(failed)

    def _change(self, change: Callable[[Job], Job]) -> None:
        """Put the changed job in the place of the old one; nothing is left to change once it was cancelled."""
        with suppress(JobNotFound):  # cancelled, and forgotten before the worker knew
            while True:
                try:
                    self._ledger.swap(self.job_id, change)
                except (StorageUnavailable, InsufficientStorage) as error:
                    if self._books.leaving():  # the job goes on after the next start, from where it was last stored
                        return
                    log.warning("job %s ended, and that cannot be stored: %s", self.job_id, error.detail)
                    time.sleep(RETRY_SECONDS)
                else:
                    return

    def _published(self, job: Job, metrics: dict[str, Any], adapter: dict[str, Tensor], state: State) -> Job:
        """The job as succeeded, once its weights are the model's next version and its state is kept."""
        at, loss = instant(), metrics["final_loss"]

        def succeeded(version: int) -> Job:
            return job.moved(JobState.SUCCEEDED, at, model_version=version, metrics=metrics)

        model = self._registry.publish(
            self.key,
            adapter,
            lambda model: model.next(at.wall, "training", job_id=job.id, plan=job.plan, loss=loss),
            lambda model: chain(self._row(succeeded(model.version)), self._left(state)),
        )
        with suppress(ServiceError):  # a start drops them again
            self._books.store.write(job_rows.stateless(self._states.keep(self.job_id, state)))
        return succeeded(model.version)

    def _left(self, state: State) -> Iterator[Change]:
        """The state in which the job ended, unless it is too large to be kept."""
        return job_rows.reached(self.job_id, state) if self._states.takes(state) else job_rows.stateless([self.job_id])

    def _row(self, job: Job) -> Iterator[Change]:
        return job_rows.changed(job, self.group, self._held.id)


def _begun(job: Job, together: int) -> Job:
    """The job as running; one that a restart interrupted has been that before."""
    if job.state is JobState.RUNNING:
        return replace(job, together=together)
    return job.moved(JobState.RUNNING, instant(), together=together)
