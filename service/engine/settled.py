"""What a run is asked to do, with nothing left open: every setting in force, its rows there and checked."""

import secrets
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from service.codecs.message import Arrays
from service.engine.capacity import Capacity
from service.engine.datasets import Datasets
from service.lora.spec import AnySpec
from service.training.datasets import check_split, drawn
from service.training.fitted import fitted
from service.training.plan import Plan
from service.training.sources import Inline, Stored, check_rows

SEEDS = 2**32  # drawn seeds are short enough to be typed again


def settled(plan: Plan, spec: AnySpec, given: Arrays, datasets: Datasets, capacity: Capacity) -> tuple[Plan, Arrays]:
    """The plan with every setting in force for a model, and the rows of its data sets; those given are checked.

    Raises:
        DatasetNotFound, Validation, ShapeMismatch, LimitExceeded
    """
    stored: Arrays = {}
    for field in ("data", "validation"):
        source = getattr(plan, field)
        if isinstance(source, Stored):  # as it is now: it may have grown, or be gone
            dataset = datasets.get(source.id)
            now: dict[str, Any] = {field: dataset.source}
            plan = replace(plan, **now)
            stored |= {f"{field}.{name}": array for name, array in dataset.arrays().items()}
    plan = fitted(plan, spec, secrets.randbelow(SEEDS), capacity.train_bytes, capacity.moments_bytes)
    for within, source in (("data", plan.data), ("validation", plan.held_out)):
        if isinstance(source, Inline):
            sent = {name.removeprefix(f"{within}."): given[name] for name in given if name.startswith(f"{within}.")}
            check_rows(sent, source.targets == "classes", spec.in_features, spec.out_features, within)
    weight = (given | stored).get("data.weight")
    if plan.n_validation and weight is not None:
        check_split(torch.from_numpy(weight), plan.n_validation, drawn(plan.seed))
    return plan, stored


def as_computed(rows: Arrays | None) -> Arrays:
    """The rows as the service computes with them: numbers are float32, classes stay integers."""
    return {
        name: array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
        for name, array in (rows or {}).items()
    }


def dataset_ids(plan: Plan) -> list[str]:
    """The data sets that a plan is trained and validated on."""
    return [source.id for source in (plan.data, plan.validation) if isinstance(source, Stored)]
