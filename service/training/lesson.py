"""What a run is given, and what it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.lora.chain import Trainable
from service.training.moments import Moments
from service.training.plan import Plan
from service.training.rows import Rows
from service.training.state import State


@dataclass(frozen=True, eq=False)
class Lesson:
    """One layer, or a chain of them, and what it learns from and how.

    Rows may be missing where their moments are there; `dropout` is the layer's. With a `state` the run goes on from
    where that was taken, and ends as if it had never stopped.
    """

    layer: Trainable
    plan: Plan
    rows: Rows | None = None
    moments: Moments | None = None
    validation: Rows | None = None
    validation_moments: Moments | None = None
    dropout: float = 0.0
    state: State | None = None

    @property
    def has_rows(self) -> bool:
        """Whether the run could go by rows: they are there, and so are those that it is validated on, if on any."""
        return self.rows is not None and (self.validation is not None or self.validation_moments is None)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a run leaves: the trained layer, its state, and its figures, of which `final_loss` is always there.

    That is the loss of the layer as it is, in float32, over all the rows it was trained on.
    """

    run: int
    layer: Trainable
    state: State
    metrics: Mapping[str, Any]
