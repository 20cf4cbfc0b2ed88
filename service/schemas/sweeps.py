"""What is asked of a sweep: what its members have in common, and what is tried."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import exp, log, prod
from typing import Annotated, Any

from annotated_types import Ge, Le, Len
from pydantic import Discriminator, Field, Tag

from service.errors import Fault, LimitExceeded
from service.lora.spec import Alpha, Rank, Seed, refuse
from service.schemas.choices import Init, Optimizer
from service.schemas.requests import AnyValidation, CreateModelRequest, Find, Request, TrainRequest
from service.training.plan import (
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_SETTINGS,
    LearningRate,
    Plan,
    Positive,
)

MAX_MEMBERS = 256
HELD_OUT = 0.2

AtMost = Len(1, MAX_MEMBERS)


class LogRange(Request):
    """Numbers whose logarithms are evenly spaced, both ends included."""

    low: Positive
    high: Positive
    count: Annotated[int, Ge(2), Le(MAX_MEMBERS)]

    def values(self, name: str) -> list[float]:
        """The numbers of the setting of that name, from low to high.

        Raises:
            Validation: when low is not below high.
        """
        if self.low >= self.high:
            refuse(f"over/{name}/low", f"low is {self.low}; it must be below high, which is {self.high}")
        low, step = log(self.low), (log(self.high) - log(self.low)) / (self.count - 1)
        return [self.low, *(exp(low + k * step) for k in range(1, self.count - 1)), self.high]


RANGE, LIST = "range", "list"


def _tried(value: Any) -> str:
    return RANGE if isinstance(value, dict | LogRange) else LIST


Alphas = Annotated[Annotated[list[Alpha], AtMost, Tag(LIST)] | Annotated[LogRange, Tag(RANGE)], Discriminator(_tried)]
Rates = Annotated[
    Annotated[list[LearningRate], AtMost, Tag(LIST)] | Annotated[LogRange, Tag(RANGE)], Discriminator(_tried)
]


class Over(Request):
    """What is tried: every value with every other."""

    rank: Annotated[list[Rank], AtMost] | None = None
    alpha: Alphas | None = None
    lr: Rates | None = None
    optimizer: Annotated[list[Optimizer], AtMost] | None = None
    init: Annotated[list[Init], AtMost] | None = None
    seed: Annotated[list[Seed], AtMost] | None = Field(None, description="how A and B begin; all else stays the same")

    def combinations(self) -> list[dict[str, Any]]:
        """The settings of each member.

        Raises:
            Validation, LimitExceeded: for none, or more than a sweep may have.
        """
        given = {name: value for name, value in self if value is not None}
        lists: list[Sequence[Any]] = [
            each.values(name) if isinstance(each, LogRange) else each for name, each in given.items()
        ]
        count = prod(map(len, lists))
        if not given:
            refuse("over", "over is empty; it needs at least one list, such as rank or lr")
        if count > MAX_MEMBERS:
            detail = f"over has {count} combinations; a sweep has at most {MAX_MEMBERS} members"
            raise LimitExceeded(detail, Fault("/over", detail), limit=MAX_MEMBERS)
        return [dict(zip(given, chosen, strict=True)) for chosen in product(*lists)]


class SweepTraining(TrainRequest):
    """What the trainings have in common, as in `POST /models/{id}/train`; without validation a fifth is held out."""

    validation: AnyValidation = Field(HELD_OUT, description="what the members are compared on")

    continue_from: None = None

    def plan(self, find: Find, earlier: Callable[[str], Plan] | None = None) -> Plan:
        plan = super().plan(find)
        return plan if "validation" in self.model_fields_set else replace(plan, validation=HELD_OUT)


class SweepModel(CreateModelRequest):
    """What the models of a sweep have in common, as in `POST /models`; each begins afresh."""

    combine: None = None
    layers: None = None


class SweepRequest(Request):
    """Many models on one base, trained on one data set and compared by their loss on rows that are held out."""

    model: SweepModel = Field(description="what the models have in common, as in `POST /models`")
    train: SweepTraining = Field(default_factory=SweepTraining)
    over: Over

    def place(self, pointer: str) -> str:
        """Where a setting stands in this request, by its pointer in that of one model or one training."""
        name = pointer.split("/")[1] if pointer else ""
        if not name or name in type(self).model_fields:
            return pointer
        if getattr(self.over, name, None) is not None:
            return f"/over{pointer}"
        return f"/train{pointer}" if name in SweepTraining.model_fields else f"/model{pointer}"

    def trials(self, find: Find) -> list[tuple[dict[str, Any], dict[str, Any], Plan]]:
        """What each member tries, those settings of it that are its model's, and its plan."""
        chosen = [self._applying(each) for each in self.over.combinations()]
        return [
            (
                each,
                {name: value for name, value in each.items() if name in CreateModelRequest.model_fields},
                self._training(each).plan(find),
            )
            for place, each in enumerate(chosen)
            if each not in chosen[:place]
        ]

    def _applying(self, each: dict[str, Any]) -> dict[str, Any]:
        """What of a combination its optimizer knows, where several are tried: closed_form has no lr."""
        if self.over.optimizer is None:
            return each
        has = OPTIMIZER_DEFAULTS[each["optimizer"]]
        return {name: value for name, value in each.items() if name not in OPTIMIZER_SETTINGS or name in has}

    def _training(self, each: dict[str, Any]) -> TrainRequest:
        """The training of a member: the common one under its own settings, without those that its optimizer lacks."""
        own = self.train.model_copy(update={name: each[name] for name in ("lr", "optimizer") if name in each})
        if self.over.optimizer is not None:
            has = OPTIMIZER_DEFAULTS[own.optimizer]
            lacking = {name for name in OPTIMIZER_SETTINGS if name not in has}
            own.__pydantic_fields_set__ -= {*lacking, "epochs"} if own.optimizer == "closed_form" else lacking
        return own
