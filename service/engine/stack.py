"""The jobs that one worker trains together, from the queue to the end of the last of them."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from service.codecs.message import pack, unpack
from service.engine.run import Run
from service.engine.trainings import Trainings
from service.training.together import STEP_MAX

TELL_SECONDS = 1.0  # from one time to the next that it is told how far the jobs are


class Stack:
    """A worker's task: one run, or several that are alike."""

    def __init__(
        self,
        runs: Sequence[Run],
        ended: Callable[[Sequence[Run]], None],
        checkpoint_seconds: float | None = None,
        told: Callable[[Sequence[Run]], None] = lambda runs: None,
        lost: Callable[[Sequence[Run]], Sequence[Run]] = lambda runs: (),
    ) -> None:
        self.runs = runs
        self._told, self._told_at = told, time.monotonic()
        self._lost = lost
        self._checkpoint_seconds = checkpoint_seconds
        self._of = {run.job_id: run for run in runs}
        self._ended = ended

    @property
    def job_ids(self) -> Sequence[str]:
        return [run.job_id for run in self.runs]

    def begin(self) -> memoryview | None:
        """The message with the plans, layers and rows of the jobs that are still wanted; None when none is.

        An array that several jobs share travels once.
        """
        jobs, arrays = [], {}
        for run in self.runs:
            begun = run.begin(len(self.runs))
            if begun is not None:
                header, tensors = begun
                names = {name: _key(array) for name, array in tensors.items()}
                arrays.update({names[name]: array for name, array in tensors.items()})
                jobs.append({**header, "tensors": names})
        task = {"do": "train", "jobs": jobs, "checkpoint_seconds": self._checkpoint_seconds}
        return pack(task, arrays) if jobs else None

    def heard(self, message: bytes) -> bool:
        """Take in what the worker says; True when that was its last word."""
        said, arrays = unpack(message)
        if said["say"] == "epochs":
            for place, job_id in enumerate(said["jobs"]):
                self._of[job_id].progressed({name: curve[:, place].tolist() for name, curve in arrays.items()})
            if time.monotonic() - self._told_at > TELL_SECONDS:
                self._told_at = time.monotonic()
                self._told(list(self._of.values()))
        elif said["say"] == "checkpoint":
            self._of[said["job"]].checkpoint(said["state"], arrays)
        elif said["say"] == "succeeded":
            self._of[said["job"]].succeeded(said["metrics"], said["state"], arrays)
            self._let_go([said["job"]])
        elif said["say"] == "failed":
            for job_id in said["jobs"]:
                self._of[job_id].failed(said["reason"], said["detail"])
            self._let_go(said["jobs"])
        return bool(said["say"] == "done")

    def lost(self, exit_code: int) -> None:
        """The worker died under the jobs; some may go on under another one."""
        for run in self._lost(list(self._of.values())):
            del self._of[run.job_id]
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with status {exit_code}"
        self._fail("worker-died", f"the process that trained {how}; the model keeps the version it had")

    def broke(self, error: Exception) -> None:
        """The server could not hand out the jobs, or take in what came of them."""
        if isinstance(error, MemoryError):
            self._fail("out-of-memory", "the server had no memory to hand out the layer and its data")
        else:
            self._fail("internal-error", "the training broke inside the service; the log holds its trace")

    def ended(self) -> None:
        """No worker holds the jobs any longer."""
        self._let_go(list(self._of))

    def _let_go(self, job_ids: Sequence[str]) -> None:
        """Give up what runs hold that have ended, while others of the stack may go on."""
        self._ended([self._of.pop(job_id) for job_id in job_ids])

    def _fail(self, reason: str, detail: str) -> None:
        for run in self._of.values():
            run.failed(reason, detail)


class Stacks:
    """Where the workers' tasks come from: the runs that wait, those that are alike together.

    A stack has at most `max_runs`, which need at most `max_bytes` between them. Where there are several workers, each
    takes its share of what is alike, so that none is idle. Where there are `checkpoint_seconds`, the workers say how
    far the runs are at least as often. A run goes on under another worker when it has lost one, up to `retries` times.
    """

    def __init__(
        self,
        trainings: Trainings,
        workers: int,
        max_runs: int,
        max_bytes: int,
        checkpoint_seconds: float | None = None,
        retries: int = 0,
    ) -> None:
        self._checkpoint_seconds, self._retries = checkpoint_seconds, retries
        self._sharing, self._queue, self._let_go = trainings.sharing, trainings.queue, trainings.let_go
        self._workers, self._max_runs, self._max_bytes = workers, max_runs, max_bytes

    def take(self, timeout: float) -> Stack | None:
        """The next stack, or None when nothing came in time."""
        runs = self._sharing.claimed(self._queue.take(timeout, self._joins))
        return Stack(runs, self._let_go, self._checkpoint_seconds, self._sharing.told, self._lost) if runs else None

    def put_back(self, stack: Stack) -> None:
        """Take back a stack that was not begun."""
        self._sharing.given_back(stack.runs)

    def _lost(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Those of the runs whose worker is gone that wait for another one."""
        return self._sharing.lost([run for run in runs if run.losses < self._retries])

    def _joins(self, taken: Sequence[Run], run: Run) -> bool:
        first = taken[0]
        most = min(self._max_runs, -(-(len(taken) + len(self._queue)) // self._workers))
        return (
            run.likeness == first.likeness
            and len(taken) < most
            and sum(other.step_cost for other in taken) + run.step_cost <= STEP_MAX
            and sum(other.bytes_stacked for other in taken) + run.bytes_stacked <= self._max_bytes
        )


def _key(array: Any) -> str:
    """The same for two arrays that are one in memory, read in the same order."""
    return f"{array.__array_interface__['data'][0]}:{array.dtype.str}:{array.shape}:{array.strides}"
