"""One training job between the engine and the worker that has it."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from service.clock import instant
from service.codecs.message import Arrays, pack, unpack
from service.errors import JobNotFound, NotFound
from service.jobs.job import Job
from service.jobs.ledger import Ledger
from service.jobs.state import State
from service.models.registry import Registry
from service.training.plan import as_dict


class Run:
    """What a worker is told of a job, and what becomes of the worker's answers.

    The key of a run is its model: the runs of one model follow one another, each from the version it finds.
    """

    def __init__(
        self, job_id: str, key: str, rows: Arrays, registry: Registry, ledger: Ledger, ended: Callable[["Run"], None]
    ) -> None:
        self.job_id = job_id
        self.key = key
        self._rows = rows
        self._registry = registry
        self._ledger = ledger
        self._ended = ended

    @property
    def nbytes(self) -> int:
        """What the rows take while the job waits or runs."""
        return sum(array.nbytes for array in self._rows.values())

    def begin(self) -> bytes | memoryview | None:
        """Mark the job as running; the message with its plan, layer and rows. None when it has ended meanwhile."""
        try:
            job = self._ledger.swap(self.job_id, lambda job: job.moved(State.RUNNING, instant()))
            model = self._registry.get(self.key)
        except NotFound:
            return None
        if job.state is not State.RUNNING:
            return None
        tensors = {"weight": model.base.weight, **model.adapter}
        if model.base.bias is not None:
            tensors["bias"] = model.base.bias
        header = {
            "do": "train",
            "job": self.job_id,
            "plan": as_dict(job.plan),
            "scaling": model.spec.scaling,
            "dropout": model.spec.dropout,
        }
        return pack(header, {**{name: tensor.cpu().numpy() for name, tensor in tensors.items()}, **self._rows})

    def heard(self, message: bytes) -> bool:
        """Take in what the worker says; True when that was its last word on this job."""
        said, arrays = unpack(message)
        if said["say"] == "losses":
            self._change(lambda job: job.progressed(said["losses"]))
            return False
        if said["say"] == "succeeded":
            self._succeed(said["loss"], arrays)
        elif said["say"] == "failed":
            self._fail(said["reason"], said["detail"])
        return True

    def lost(self, exit_code: int) -> None:
        """The worker died under the job."""
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with status {exit_code}"
        self._fail("worker-died", f"the process that trained {how}; the model keeps the version it had")

    def broke(self, error: Exception) -> None:
        """The server could not hand out the job, or take in what came of it."""
        if isinstance(error, MemoryError):
            self._fail("out-of-memory", "the server had no memory to hand out the layer and its data")
        else:
            self._fail("internal-error", "the training broke inside the service; the log holds its trace")

    def ended(self) -> None:
        """No worker holds the job any longer."""
        self._ended(self)

    def _fail(self, reason: str, detail: str) -> None:
        self._change(lambda job: job.moved(State.FAILED, instant(), reason, detail=detail))

    def _change(self, change: Callable[[Job], Job]) -> None:
        """Put the changed job in the place of the old one; nothing is left to change once it was cancelled."""
        with suppress(JobNotFound):  # cancelled, and forgotten before the worker knew
            self._ledger.swap(self.job_id, change)

    def _succeed(self, loss: float, arrays: Arrays) -> None:
        """Publish the weights as the model's next version, with which the job has succeeded."""
        with suppress(NotFound):  # deleted meanwhile, and the job cancelled by that
            device = self._registry.get(self.key).base.weight.device
            # Copied here, where no reader waits for a lock.
            adapter = {name: torch.from_numpy(np.array(array)).to(device) for name, array in arrays.items()}
            self._change(lambda job: self._published(job, loss, adapter))

    def _published(self, job: Job, loss: float, adapter: dict[str, Tensor]) -> Job:
        """The job as succeeded, once its weights are the model's next version."""
        at = instant()
        version = self._registry.swap(self.key, lambda model: model.published(at.wall, adapter, loss)).version
        return job.moved(State.SUCCEEDED, at, model_version=version, metrics={"final_loss": loss})
