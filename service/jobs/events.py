"""What happened to a job, as numbered events. They follow from its record, so they cannot disagree with it."""

from dataclasses import dataclass
from typing import Any

from service.jobs.job import Job

# What one number of a curve is called.
SINGULAR = {
    "losses": "loss",
    "validation_losses": "validation_loss",
    "accuracies": "accuracy",
    "validation_accuracies": "validation_accuracy",
}


END_EVENTS = 4  # those of a whole job beside its epochs: queued, running, ended, done


@dataclass(frozen=True)
class Event:
    """The `number`-th thing that happened to a job, counted from 1: `state`, `epoch` or `done`."""

    number: int
    kind: str
    data: dict[str, Any]


def count(job: Job) -> int:
    """How many events the job has so far."""
    return len(job.history) + job.epoch + job.state.terminal


def since(job: Job, after: int = 0, end: int | None = None) -> list[Event]:
    """The events numbered above `after`, up to `end` where one is given, in order.

    Each change of state stands where it happened between the epochs; `done` closes the list of a job that ended.
    A number that the job can never have had belongs to none of its events, so the list starts over. One that it may
    have had before a restart took it back to where it was stored is waited for: it will have it again.
    """
    total = count(job)
    end = total if end is None else end
    if not 0 <= after <= (total if job.state.terminal else max(total, job.epochs + END_EVENTS)):
        after = 0
    events: list[Event] = []
    done_epochs = 0
    # Before the first change come no epochs, and after the last one those of a running job.
    for earlier, (epoch, change) in enumerate([*((c.epoch, c) for c in job.history), (job.epoch, None)]):
        first = max(done_epochs, after - earlier)
        curves = {SINGULAR[name]: job.curve(name, first, max(0, min(epoch, end - earlier))) for name in job.curves}
        events += [
            Event(k + earlier, "epoch", {"epoch": k, "epochs": job.epochs, **dict(zip(curves, numbers, strict=True))})
            for k, numbers in enumerate(zip(*curves.values(), strict=True), start=first + 1)
        ]
        number = epoch + earlier + 1
        if change is not None and after < number <= end:
            events.append(Event(number, "state", {"state": str(change.state), "reason": change.reason}))
        done_epochs = epoch
    if job.state.terminal and after < total <= end:
        events.append(Event(total, "done", {"state": str(job.state), "reason": job.reason}))
    return events
