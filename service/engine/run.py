"""One training job between the engine and the worker that has it."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.clock import instant
from service.codecs.message import Arrays
from service.engine.states import States
from service.errors import JobNotFound, NotFound, StateGone
from service.jobs.job import Job
from service.jobs.ledger import Ledger
from service.jobs.state import State as JobState
from service.lora.spec import Spec
from service.models.registry import Registry
from service.training.cost import bytes_stacked, step_cost
from service.training.plan import Plan, as_dict
from service.training.state import State, as_parts, continued, from_parts
from service.training.together import likeness


class Held:
    """Rows that came with a request, counted until the last of the runs that need them has ended."""

    def __init__(self, arrays: Arrays, users: int = 1) -> None:
        self.arrays = arrays
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
        spec: Spec,
        held: Held,
        stored: Arrays,
        registry: Registry,
        ledger: Ledger,
        states: States,
        group: str = "",
    ) -> None:
        self.job_id = job_id
        self.key = key
        self.likeness = likeness(plan, spec)
        self.bytes_stacked = bytes_stacked(plan, spec)
        self.step_cost = step_cost(plan, spec.rank, spec.in_features, spec.out_features)
        self.group = group or job_id
        self._held = held
        self._rows = {**held.arrays, **stored}
        self._registry = registry
        self._ledger = ledger
        self._states = states

    def release(self) -> int:
        """The bytes of rows that nobody needs any longer when this run has ended."""
        return self._held.release()

    def begin(self, together: int) -> tuple[dict[str, Any], Arrays] | None:
        """Mark the job as running; its plan, layer and rows. None when it has ended meanwhile."""
        try:
            job = self._ledger.swap(self.job_id, lambda job: job.moved(JobState.RUNNING, instant(), together=together))
            model = self._registry.loaded(self.key)
        except NotFound:
            return None
        if job.state is not JobState.RUNNING:
            return None
        tensors = {"weight": model.base.weight, **model.adapter}
        if model.base.bias is not None:
            tensors["bias"] = model.base.bias
        header = {
            "job": self.job_id,
            "plan": as_dict(job.plan),
            "scaling": model.spec.scaling,
            "dropout": model.spec.dropout,
        }
        state: Arrays = {}
        if job.plan.continue_from is not None:
            try:
                facts, arrays = as_parts(continued(self._states.get(job.plan.continue_from), job.plan.path))
            except StateGone as gone:  # dropped for newer ones while this job waited
                self.failed("state-gone", gone.detail)
                return None
            header["state"] = facts
            state = {f"state.{name}": array for name, array in arrays.items()}
        return header, {
            **state,
            **{name: tensor.cpu().numpy() for name, tensor in tensors.items()},
            **self._rows,
        }

    def progressed(self, curves: dict[str, list[float]]) -> None:
        """More epochs are done."""
        self._change(lambda job: job.progressed(curves))

    def succeeded(self, metrics: dict[str, Any], facts: dict[str, Any], arrays: Arrays) -> None:
        """Publish the weights as the model's next version, with which the job has succeeded, and keep its state."""
        kept = {name.removeprefix("state."): np.array(arrays.pop(name)) for name in list(arrays) if "." in name}
        state = from_parts(facts, kept)
        with suppress(NotFound):  # deleted meanwhile, and the job cancelled by that
            device = self._registry.device
            # Copied here, where no reader waits for a lock.
            adapter = {name: torch.from_numpy(np.array(array)).to(device) for name, array in arrays.items()}
            self._change(lambda job: self._published(job, metrics, adapter, state))

    def failed(self, reason: str, detail: str) -> None:
        """The training went wrong; the model keeps the version it had."""
        self._change(lambda job: job.moved(JobState.FAILED, instant(), reason, detail=detail))

    def _change(self, change: Callable[[Job], Job]) -> None:
        """Put the changed job in the place of the old one; nothing is left to change once it was cancelled."""
        with suppress(JobNotFound):  # cancelled, and forgotten before the worker knew
            self._ledger.swap(self.job_id, change)

    def _published(self, job: Job, metrics: dict[str, Any], adapter: dict[str, Tensor], state: State) -> Job:
        """The job as succeeded, once its weights are the model's next version and its state is kept."""
        at, loss = instant(), metrics["final_loss"]
        version = self._registry.publish(self.key, lambda model: model.published(at.wall, adapter, loss)).version
        self._states.keep(self.job_id, state)
        return job.moved(JobState.SUCCEEDED, at, model_version=version, metrics=metrics)
