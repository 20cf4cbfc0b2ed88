"""Jobs with a history, made move by move, and the list of events that a naive reader would have kept."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from service.clock import Instant
from service.jobs.job import Job
from service.jobs.state import State

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ENDS = [State.SUCCEEDED, State.FAILED, State.CANCELLED]
LOSSES = st.lists(st.floats(0, 10), max_size=5)

Step = State | list[float]


def at(seconds: float, wall: float | None = None) -> Instant:
    """A moment on both clocks, which may disagree."""
    return Instant(EPOCH + timedelta(seconds=seconds if wall is None else wall), seconds)


def job(job_id: str = "job_1", model_id: str = "mdl_1", epochs: int = 10) -> Job:
    return Job(id=job_id, model_id=model_id, epochs=epochs, plan=None, created_at=EPOCH)


def step(record: Job, change: Step, seconds: float = 0.0) -> Job:
    """The job after one step: a move to a state, or some finished epochs."""
    if isinstance(change, State):
        return record.moved(change, at(seconds), "because" if change is State.FAILED else None)
    return record.progressed({"losses": change})


def told(steps: Sequence[Step], epochs: int) -> list[tuple[str, dict[str, Any]]]:
    """What happens in these steps, written down as it happens."""
    lines: list[tuple[str, dict[str, Any]]] = [("state", {"state": "queued", "reason": None})]
    epoch = 0
    for change in steps:
        if isinstance(change, State):
            facts = {"state": str(change), "reason": "because" if change is State.FAILED else None}
            lines.append(("state", facts))
            if change in ENDS:
                lines.append(("done", facts))
        else:
            for loss in change:
                epoch += 1
                lines.append(("epoch", {"epoch": epoch, "epochs": epochs, "loss": loss}))
    return lines


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Everything that may happen to a job, from nothing to its end."""
    if draw(st.booleans()):
        return draw(st.sampled_from([[], [State.CANCELLED], [State.FAILED]]))
    middle: list[Step] = list(draw(st.lists(LOSSES, max_size=6)))
    return [State.RUNNING, *middle, *draw(st.sampled_from([[], *([end] for end in ENDS)]))]
