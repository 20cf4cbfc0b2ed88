"""What is known of the versions of a model, and which of them are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from service.training.digests import digest_of
from service.training.plan import Plan

Origin = Literal["created", "training", "import", "rollback"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A version that is kept; of a training with the loss it is judged by, and a name for how that was measured."""

    number: int
    loss: float | None = None
    measure: str | None = None


FIRST = Mark(0)

# Versions of one model, the oldest first.
Marks = tuple[Mark, ...]


@dataclass(frozen=True, kw_only=True)
class Version:
    """Where the weights of a version come from.

    `parent` is the number of the version that it was made from. A training has a job and a plan; its losses are those
    of these weights over the data, and over what was held out. A rollback has those of the version that it brings back.
    """

    number: int
    created_at: datetime
    origin: Origin
    parent: int | None = None
    job_id: str | None = None
    plan: Plan | None = None
    loss: float | None = None
    validation_loss: float | None = None

    @classmethod
    def first(cls, at: datetime) -> "Version":
        """The weights with which a model begins."""
        return cls(number=FIRST.number, created_at=at, origin="created")

    @property
    def mark(self) -> Mark:
        """The little that is known of it wherever its model is."""
        if self.origin != "training":
            return Mark(self.number)
        judged = self.loss if self.validation_loss is None else self.validation_loss
        return Mark(self.number, judged, None if self.plan is None else _measure(self.plan))

    @property
    def data_digest(self) -> str | None:
        """Names the data that it was trained on."""
        return None if self.plan is None else digest_of(self.plan.data)


def best(marks: Sequence[Mark]) -> Mark | None:
    """Of the trained versions that are judged like the newest of them the one of the lowest loss, the newer of two."""
    trained = [mark for mark in marks if mark.loss is not None]
    alike = [(mark.loss, -mark.number, mark) for mark in trained if mark.measure == trained[-1].measure]
    return min(alike)[-1] if alike else None


def pruned(kept: Marks, new: Mark, most: int) -> tuple[Marks, Marks]:
    """The versions that are kept with a new one, and those that go.

    Kept are the new one, so many before it, and the best.
    """
    marks = (*kept, new)
    spared = {*marks[-1 - most :], best(marks)}
    return tuple(mark for mark in marks if mark in spared), tuple(mark for mark in marks if mark not in spared)


def one_fewer(kept: Marks) -> tuple[Marks, Marks]:
    """The versions without the oldest before the newest, and that one; the best stays as long as there is another."""
    goes = next((mark for mark in kept[:-1] if mark != best(kept)), kept[0])
    return tuple(mark for mark in kept if mark != goes), (goes,)


def _measure(plan: Plan) -> str:
    """Names the loss, and the rows, by which a training is judged; losses of one name can be compared."""
    fraction = plan.validation if isinstance(plan.validation, float) else ""
    return f"{plan.loss} {digest_of(plan.held_out or plan.data)} {fraction}"
