"""A job as both clients know it: its fields, and how it looks."""

from collections.abc import Iterator
from html import escape
from itertools import chain, repeat

from service.client.problems import JobFailed
from service.schemas import training

# Seconds between two looks at a job that is waited for: most jobs end in the first of them.
LOOKS = 0.02, 0.03, 0.05, 0.1, 0.2
LAST_LOOK = 0.4
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS = 24


class Record(training.Job):
    """A job as it was when it was last read."""

    @property
    def ended(self) -> bool:
        """Whether the job has come to its end, whichever that is."""
        return self.state.terminal

    def __repr__(self) -> str:
        """One line: what it is, how it stands, and how its loss went."""
        loss = f", loss {self.losses[0]:.4g} → {self.losses[-1]:.4g} {sparks(self.losses)}" if self.losses else ""
        why = f" ({self.reason})" if self.reason else ""
        return f"{type(self).__name__}({self.id}: {self.state}{why}, epoch {self.epoch}/{self.epochs}{loss})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The same in a notebook."""
        return f"<code>{escape(repr(self))}</code>"

    def _take(self, fresh: training.Job) -> None:
        """Become what was read just now."""
        for name, value in fresh:
            setattr(self, name, value)


def looks() -> Iterator[float]:
    """How many seconds to let go by before each look."""
    return chain(LOOKS, repeat(LAST_LOOK))


def sparks(losses: list[float]) -> str:
    """The course of the losses in a few characters."""
    step = max(1, -(-len(losses) // SPARK_COLUMNS))
    shown = losses[::step]
    low, high = min(shown), max(shown)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((loss - low) * scale)] for loss in shown)


def failed(job: Record) -> JobFailed:
    """That a job did not succeed, and why."""
    return JobFailed(f"{job.id} is {job.state}: {job.detail or 'somebody cancelled it'}")


def late(job: Record, seconds: float | None) -> TimeoutError:
    """That a job did not end in time."""
    return TimeoutError(f"{job.id} has not ended after {seconds} s; it goes on, and can be waited for again")
