"""One training job between the engine and the worker that has it."""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from service.clock import instant
from service.codecs.message import Arrays
from service.engine.states import States
from service.errors import (
    CapacityExhausted,
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
from service.models.budget import Budget
from service.models.dataset_rows import as_it_was
from service.models.model import LoadedModel
from service.models.registry import Registry
from service.models.shelf import Shelf
from service.models.store import Change, Claim, ClaimLost, Store
from service.training.cost import bytes_stacked, step_cost
from service.training.plan import Plan, as_dict
from service.training.sources import Stored
from service.training.state import State, as_parts, continued, from_parts
from service.training.together import likeness

RETRY_SECONDS = 1.0

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Books:
    """Where runs look things up and write them down; `leaving` says that the service is shutting down."""

    registry: Registry
    datasets: Shelf
    ledger: Ledger
    states: States
    store: Store
    budget: Budget
    leaving: Callable[[], bool] = lambda: False


class Held:
    """Rows that came with a request, which the runs of several jobs may share.

    In memory, and counted, they are from the request on, or from when they are first asked for, until the last of the
    runs has left.
    """

    def __init__(self, books: Books, id: str | None = None, arrays: Arrays | None = None) -> None:
        self.id = id  # in the store
        self._store, self._budget = books.store, books.budget
        self._arrays: Arrays | None = {} if id is None else arrays
        self._users = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """What the rows take in memory."""
        return sum(array.nbytes for array in (self._arrays or {}).values())

    def arrays(self) -> Arrays:
        """The rows, read from the store where they are there alone.

        Raises:
            StorageUnavailable
            CapacityExhausted: when there is no memory for them.
        """
        with self._lock:
            if self._arrays is None:
                assert self.id is not None, "what has no name is in memory"
                read = job_rows.given_rows(self._store, self.id)
                self._budget.take(sum(array.nbytes for array in read.values()))
                self._arrays = read
            return self._arrays

    def join(self) -> None:
        """One run more needs them."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """One run less needs them; what nobody needs takes no memory."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._budget.give(self.nbytes)
                self._arrays = {} if self.id is None else None


class Run:
    """What a worker is told of a job, and what becomes of the worker's answers.

    The key of a run is its model: the runs of one model follow one another, each from the version it finds. Runs of
    one `likeness` may be stacked; `bytes_stacked` and `step_cost` are what this one then takes of a worker.

    Args:
        stored: the rows of its data sets. None for a job that was accepted before a restart: then they are read when
            its turn comes, as they were when it was accepted, with the state that it has come to.
    """

    def __init__(self, job: Job, spec: AnySpec, books: Books, held: Held, stored: Arrays | None = None) -> None:
        self.job_id = job.id
        self.key = job.model_id
        self._spec = spec
        self.likeness: Hashable = (likeness(job.plan, spec), job.epoch)
        self.bytes_stacked = bytes_stacked(job.plan, spec)
        self.step_cost = step_cost(job.plan, spec)
        self.group = job.group or job.id
        self.owner = job.owner
        self._held, self._stored, self._books = held, stored, books
        self._registry, self._ledger, self._states = books.registry, books.ledger, books.states
        self.losses = 0  # workers that were lost under it
        self.fence: int | None = None  # under which this server has the job, where others could have it
        self._told = self._telling = job.epoch  # epochs that other servers know of, or are about to
        self._released = False
        held.join()

    def back_at(self, job: Job) -> None:
        """Wait again, for a job that was taken back to where it is stored because its worker is gone."""
        self.losses += 1
        self.likeness = (likeness(job.plan, self._spec), job.epoch)
        self._told = self._telling = job.epoch
        self.fence = None

    def release(self) -> None:
        """Nobody needs the rows for this run any longer."""
        if not self._released:
            self._released = True
            self._held.leave()

    @property
    def _goes_on(self) -> bool:
        """Whether the service is shutting down, so that what has not ended goes on from the store."""
        return self._books.store.durable and self._books.leaving()

    def begin(self, together: int) -> tuple[dict[str, Any], Arrays] | None:
        """Mark the job as running; its plan, layer and rows. None when it has ended meanwhile, or is to wait."""
        try:
            begun = self._patiently(lambda: self._needs(self._begun(together)))
        except (NotFound, ClaimLost):
            return None
        except StateGone as gone:  # dropped for newer ones while this job waited
            self.failed("state-gone", gone.detail)
            return None
        if begun is None:
            return None
        job, model, rows, start = begun
        if (0 if start is None else start.epoch) != job.epoch:  # another server had it since this one looked
            return None
        layer = model.layer
        header = {
            "job": self.job_id,
            "plan": as_dict(job.plan),
            "layers": [{"scaling": each.scaling, "frozen_rank": each.frozen_rank} for each in layer.layers],
            "activations": layer.activations,
            "dropout": model.spec.dropout,
        }
        state: Arrays = {}
        if start is not None:
            header["state"], arrays = as_parts(start)
            state = {f"state.{name}": array for name, array in arrays.items()}
        tensors = named([each.tensors() for each in layer.layers])
        return header, {
            **state,
            **{f"layer.{name}": tensor.cpu().numpy() for name, tensor in tensors.items()},
            **rows,
        }

    def _begun(self, together: int) -> Job:
        """The job as running; one that a restart interrupted has been that before."""

        def begun(job: Job) -> Job:
            if job.state is JobState.RUNNING:
                job = replace(job, together=together)
            else:
                job = job.moved(JobState.RUNNING, instant(), together=together)
            if self.fence is not None:
                self._books.store.write(self._claim(), job_rows.changed(job))
            return job

        with self._books.store.turn():
            return self._ledger.swap(self.job_id, begun)

    def _claim(self) -> Iterator[Change]:
        """That the job is still this server's, for what is written about it."""
        if self.fence is not None:
            yield Claim(self.job_id, self.fence)

    def _patiently(self, work: Callable[[], T]) -> T | None:
        """What the work comes to, once the store answers and there is memory; None once the job is not wanted."""
        while not (self._goes_on or self._ledger.get(self.job_id).state.terminal):
            try:
                return work()
            except (StorageUnavailable, InsufficientStorage, CapacityExhausted) as error:
                log.warning("job %s waits for what it needs: %s", self.job_id, error.detail)
                time.sleep(RETRY_SECONDS)
        return None

    def _needs(self, job: Job) -> tuple[Job, LoadedModel, Arrays, State | None] | None:
        """The job, its model with the weights, the rows, and the state to go on from; None where it has ended."""
        if job.state.terminal:
            return None
        return job, self._registry.read(self.key), self._rows(job.plan), self._start(job.plan)

    def _rows(self, plan: Plan) -> Arrays:
        stored = _as_accepted(self._books, plan) if self._stored is None else self._stored
        return {**self._held.arrays(), **stored}

    def _start(self, plan: Plan) -> State | None:
        """The state that the run goes on from, where it does: its own from before a restart, or an earlier job's."""
        begun = self._stored is None or self.losses
        own = job_rows.state(self._books.store, self.job_id) if begun else None
        if own is not None or plan.continue_from is None:
            return own
        return continued(self._states.get(plan.continue_from), plan.path or "batch")

    def progressed(self, curves: dict[str, list[float]]) -> None:
        """More epochs are done."""
        with suppress(JobNotFound):  # cancelled, and forgotten before the worker knew
            self._ledger.swap(self.job_id, lambda job: job.progressed(curves))

    def news(self) -> Iterator[Change]:
        """The epochs that are done since other servers were told of some."""
        job = self._ledger.find(self.job_id)
        if job is not None and not job.state.terminal and job.epoch > self._told:
            yield from self._claim()
            yield from job_rows.went_on(job, self._told)
            self._telling = job.epoch

    def was_told(self) -> None:
        """Other servers know what `news` had."""
        self._told = self._telling

    def checkpoint(self, facts: dict[str, Any], arrays: Arrays) -> None:
        """Store where the run stands; where that fails, an earlier place or the start has to do."""
        state = from_parts(facts, {name.removeprefix("state."): array for name, array in arrays.items()})

        def stored(job: Job) -> Job:
            self._books.store.write(self._claim(), job_rows.changed(job), job_rows.reached(self.job_id, state))
            return job

        try:  # in the ledger's turn, so that no end of the job comes between
            with self._books.store.turn():
                self._ledger.swap(self.job_id, stored)
        except (JobNotFound, ClaimLost):  # cancelled, and forgotten, or somebody else's
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
            self._books.store.write(self._claim(), job_rows.ended(over))
            return over

        self._change(failed)

    def _change(self, change: Callable[[Job], Job]) -> None:
        """Put the changed job in the place of the old one; nothing is left to change once it was cancelled."""
        # Cancelled, and forgotten before the worker knew; or another server has it, which took this one for dead.
        with suppress(JobNotFound, ClaimLost):
            while True:
                try:
                    with self._books.store.turn():
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
        at, losses = instant(), {"loss": metrics["final_loss"], "validation_loss": metrics.get("validation_loss")}

        def succeeded(version: int) -> Job:
            size = state.nbytes if self._states.takes(state) else 0
            return job.moved(JobState.SUCCEEDED, at, model_version=version, metrics=metrics, state_bytes=size)

        model = self._registry.publish(
            self.key,
            adapter,
            lambda model: model.next(at.wall, "training", job_id=job.id, plan=job.plan, **losses),
            lambda model: chain(self._claim(), job_rows.changed(succeeded(model.version)), self._left(state)),
        )
        with suppress(ServiceError):  # a start drops them again
            self._books.store.write(job_rows.stateless(self._states.keep(self.job_id, state)))
        return succeeded(model.version)

    def _left(self, state: State) -> Iterator[Change]:
        """The state in which the job ended, unless it is too large to be kept."""
        return job_rows.reached(self.job_id, state) if self._states.takes(state) else job_rows.stateless([self.job_id])


def _as_accepted(books: Books, plan: Plan) -> Arrays:
    """The rows of a plan's data sets, as they were when the job was accepted."""
    arrays: Arrays = {}
    for field in ("data", "validation"):
        source = getattr(plan, field)
        if isinstance(source, Stored):
            dataset = books.datasets.get(source.id)
            if dataset.source.n_samples != source.n_samples:  # it has grown
                dataset = as_it_was(books.store, source.id, source.n_samples)
            arrays |= {f"{field}.{name}": array for name, array in dataset.arrays().items()}
    return arrays
