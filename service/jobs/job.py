"""The record of one run, as a value: each change makes the next one."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from service.clock import Instant
from service.jobs.state import MOVES, State


@dataclass(frozen=True)
class Change:
    """A job entered a state when `epoch` epochs were done."""

    state: State
    epoch: int
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run of one model, from the moment it is accepted.

    `reason` is a word a program can test, `detail` a sentence for people; both are None unless something went
    wrong. `plan` is what the job was asked to do, in the words of whoever asked. `together`: how many jobs ran as one.
    `owner` is the name of the key that asked for it, where there are keys. Jobs of one `group` wait as one, and
    `given_id` names the rows that came with it, where some did. `state_bytes`: what its training state takes that it
    left when it ended, where one is kept.
    """

    id: str
    model_id: str
    epochs: int
    plan: Any
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_seconds: float | None = None
    model_version: int | None = None
    reason: str | None = None
    detail: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    together: int | None = None
    owner: str = ""
    group: str = ""
    given_id: str | None = None
    state_bytes: int = 0
    epoch: int = 0
    history: tuple[Change, ...] = (Change(State.QUEUED, 0),)
    _started: float | None = None  # on the monotonic clock
    # Shared by all values of one job and only ever appended to: each sees the first `epoch` numbers.
    _curves: "dict[str, array[float]]" = field(default_factory=dict, repr=False)

    @classmethod
    def queued(cls, job_id: str, model_id: str, epochs: int, plan: Any, at: datetime, **known: Any) -> "Job":
        """A job that has just been accepted."""
        return cls(id=job_id, model_id=model_id, epochs=epochs, plan=plan, created_at=at, **known)

    @property
    def state(self) -> State:
        return self.history[-1].state

    @property
    def curves(self) -> tuple[str, ...]:
        """What there is one number of for each finished epoch."""
        return tuple(self._curves)

    def curve(self, name: str, first: int = 0, end: int | None = None) -> Sequence[float]:
        """One number for each epoch after the `first` up to the `end`, by default for all finished ones."""
        return self._curves.get(name, array("d"))[first : self.epoch if end is None else min(end, self.epoch)]

    @property
    def losses(self) -> Sequence[float]:
        """The loss of each finished epoch."""
        return self.curve("losses")

    def moved(self, state: State, at: Instant, reason: str | None = None, **facts: Any) -> "Job":
        """This job in another state, with what became known by it.

        Raises:
            ValueError: for a move that `MOVES` does not have.
        """
        if state not in MOVES[self.state]:
            raise ValueError(f"a job does not move from {self.state} to {state}")
        history = (*self.history, Change(state, self.epoch, reason))
        return replace(self, history=history, reason=reason, **self._times(state, at), **facts)

    def _times(self, state: State, at: Instant) -> dict[str, Any]:
        if state is State.RUNNING:
            return {"started_at": at.wall, "_started": at.seconds}
        ran = None if self._started is None else round(at.seconds - self._started, 6)
        return {"finished_at": at.wall, "duration_seconds": ran}

    def as_far_as(self, known: "Job") -> "Job":
        """This job with the epochs that are known of it."""
        return replace(self, epoch=known.epoch, _curves=known._curves)

    def progressed(self, curves: Mapping[str, Sequence[float]]) -> "Job":
        """This job with more finished epochs: their numbers by name, `losses` among them."""
        for name, numbers in curves.items():
            self._curves.setdefault(name, array("d")).extend(numbers)
        return replace(self, epoch=self.epoch + len(curves["losses"]))
