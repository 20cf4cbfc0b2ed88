"""How the losses of a stack are computed: from moments or from rows, on the training and on the validation data."""

from collections.abc import Sequence
from typing import Any

from service.lora.layer import LoRALinear
from service.training.adapters import Adapters
from service.training.cost import LOOKED_AT, looked_at
from service.training.lesson import Lesson
from service.training.moments import ByMoments, Residual, residual
from service.training.plan import Path
from service.training.rows import ByRows, Draws

Objective = ByMoments | ByRows


def objectives(
    adapters: Adapters, lessons: Sequence[Lesson], path: Path, draws: Sequence[Draws]
) -> tuple[Objective, Objective | None, list[Residual]]:
    """Those of the training data and, where there are some, of the validation data; by moments the residuals too."""
    if path == "moments":
        known = residuals(adapters, [lesson.moments for lesson in lessons])
        held_out = [lesson.validation_moments for lesson in lessons]
        validation = None if held_out[0] is None else ByMoments(adapters, residuals(adapters, held_out))
        return ByMoments(adapters, known), validation, known
    plan = lessons[0].plan

    def by_rows(rows: list[Any], batch_size: int | None, at_once: int, dropout: float) -> ByRows:
        return ByRows(adapters, rows, draws, plan.loss, batch_size, at_once, dropout)

    training = by_rows([each.rows for each in lessons], plan.batch_size, looked_at(plan), lessons[0].dropout)
    validated = lessons[0].validation is not None
    return training, by_rows([each.validation for each in lessons], None, LOOKED_AT, 0.0) if validated else None, []


def residuals(adapters: Adapters, moments: list[Any]) -> list[Residual]:
    """The residual of each run; runs on the same data and base have one."""
    seen: dict[tuple[int, ...], Residual] = {}
    layers = adapters.parts[0].layers
    keys = [_same(known, layer) for known, layer in zip(moments, layers, strict=True)]
    for key, known, layer in zip(keys, moments, layers, strict=True):
        if key not in seen:
            seen[key] = residual(adapters.backend, known, layer)
    return [seen[key] for key in keys]


def _same(moments: Any, layer: LoRALinear) -> tuple[int, ...]:
    return id(moments), *layer.frozen_id
