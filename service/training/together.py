"""Which runs may be trained in one stacked step, and how many of them are worth it. Imports no torch."""

from collections.abc import Hashable
from dataclasses import fields

from service.lora.spec import AnySpec
from service.training.plan import Plan
from service.training.sources import Source, has_rows, is_weighted

# Multiplications of one stacked step: beyond, a job gains nothing from the others and only waits for them.
STEP_MAX = 2**26

SETTINGS = [field.name for field in fields(Plan) if field.name not in ("lr", "seed", "data", "validation")]


def likeness(plan: Plan, spec: AnySpec) -> Hashable:
    """What runs must have in common to be stacked: shapes and settings, but not data, seeds, scaling and lr.

    The plan is `fitted`.
    """
    by_rows = plan.path == "batch"
    held_out = plan.held_out
    return (
        tuple(getattr(plan, name) for name in SETTINGS),
        tuple((layer.in_features, layer.out_features, layer.rank) for layer in spec.layers),
        (spec.activations, spec.train_bias, spec.dropout, spec.use_dora),
        _kind(plan.data, by_rows),
        plan.n_validation if by_rows else bool(plan.n_validation),
        None if held_out is None else _kind(held_out, by_rows),
    )


def _kind(source: Source, by_rows: bool) -> Hashable:
    """What must be alike of two sources: moments are of one size whatever the rows."""
    return has_rows(source), is_weighted(source), source.n_samples if by_rows else None
