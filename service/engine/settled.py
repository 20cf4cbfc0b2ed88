"""What a run is asked to do, with nothing left open: every setting in force, its rows there and checked."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from service.codecs.message import Arrays
from service.engine.capacity import Capacity
from service.engine.datasets import Datasets
from service.lora.spec import AnySpec
from service.training.datasets import check_split, drawn
from service.training.digests import digest_of_rows
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
            check_rows(sent(given, within), source.targets == "classes", spec.in_features, spec.out_features, within)
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


def digests(rows: Arrays) -> dict[str, str]:
    """The digest of the rows of each source that was sent, `data` or `validation`; they are as computed."""
    return {within: digest_of_rows(sent(rows, within)) for within in sorted({name.partition(".")[0] for name in rows})}


def digested(plan: Plan, digests: Mapping[str, str]) -> Plan:
    """The plan with the digests of the rows that travel with it."""
    inline = {"data": plan.data, "validation": plan.held_out}
    named: dict[str, Any] = {
        within: replace(source, digest=digests[within])
        for within, source in inline.items()
        if isinstance(source, Inline)
    }
    return replace(plan, **named) if named else plan


def sent(rows: Arrays, within: str) -> Arrays:
    """Those of the rows that are of one source, by their own names."""
    return {name.removeprefix(f"{within}."): rows[name] for name in rows if name.startswith(f"{within}.")}


def dataset_ids(plan: Plan) -> list[str]:
    """The data sets that a plan is trained and validated on."""
    return [source.id for source in (plan.data, plan.validation) if isinstance(source, Stored)]
