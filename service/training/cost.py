"""What a run costs in bytes and multiplications, and the path that follows from it. Imports no torch."""

from collections.abc import Sequence
from typing import Protocol

from service.errors import Fault, LimitExceeded
from service.lora.spec import FLOAT32_BYTES, AnySpec
from service.training.plan import Path, Plan
from service.training.sources import Source, Stored, Teacher, has_rows

LOOKED_AT = 4_096
FLOAT64_BYTES = 8
BLOCK_NUMBERS = 2**18  # of a block of rows that is gathered into moments
MOMENTS_BYTES = 256 * 2**20
OPTIMUM_FEATURES = 1_024  # beyond, data is not gathered for the optimum alone
MOMENTS_COPIES = 14  # matrices as large as the moments that are there at once while the optimum is computed
LAYER_COPIES = 6  # of the inputs of a chain's layers, for the way through them and back
ADAPTER_COPIES = 14  # with the gradient, the optimizer's memory, the best so far, and the state at the end

# What a multiplication of the row loop costs in those of one pass into moments: thin products run far below a core's
# peak, and each epoch reads and writes the outputs several times. Measured at 64→10 and 384→384.
ROW_COST = 4


def looked_at(plan: Plan) -> int:
    """How many rows at a time the loss of the trained weights is measured on: small batches would only cost time."""
    return plan.n_train if plan.batch_size is None else min(plan.n_train, max(plan.batch_size, LOOKED_AT))


def bytes_needed(plan: Plan, spec: AnySpec) -> int:
    """Bytes that a run takes beside its layer.

    They are those of the rows, their frozen outputs and their order, of what one step makes of its batch, and of the
    adapter's copy, its gradient and the optimizer's memory; where it learns from moments, of these, of the block of
    rows that is gathered, and of the adapter in double precision. The optimum of full-batch mse takes moments too.
    """
    sources = _sources(plan)
    drawn = max(
        2 * spec.base_numbers + 2 * source.n_samples * spec.out_features if isinstance(source, Teacher) else 0
        for source in sources
    )
    rows, frozen = _rows_numbers(plan, spec)
    several = len(spec.layers) > 1
    frozen += spec.base_numbers * (bool(spec.frozen_rank) + spec.use_dora + several)  # W, W less a start, in a stack
    copies = 4 * bool(spec.dropout) + bool(plan.batch_size)  # of a batch's inputs
    copies += LAYER_COPIES * several
    made = sum(8 * layer.out_features + copies * layer.in_features + 2 * layer.rank for layer in spec.layers)
    step = looked_at(plan) * made if rows else 0
    moments = MOMENTS_COPIES * spec.in_features * (spec.in_features + spec.out_features + 1) + 2 * BLOCK_NUMBERS
    adapter = ADAPTER_COPIES * spec.adapter_numbers
    if plan.path == "moments":  # and perhaps goes on with its rows
        return FLOAT32_BYTES * (rows + max(frozen + step, drawn)) + FLOAT64_BYTES * (
            moments + adapter + spec.base_numbers
        )
    optimum = plan.loss == "mse" and plan.batch_size is None and spec.in_features <= OPTIMUM_FEATURES and not several
    run = rows + max(frozen + step, drawn) + adapter
    return FLOAT32_BYTES * run + FLOAT64_BYTES * optimum * moments


def bytes_stacked(plan: Plan, spec: AnySpec) -> int:
    """Bytes that a run takes in a stack, for which rows and their frozen outputs are copied side by side."""
    return bytes_needed(plan, spec) + FLOAT32_BYTES * sum(_rows_numbers(plan, spec)) * (plan.path == "batch")


def _sources(plan: Plan) -> list[Source]:
    return [plan.data, *([] if plan.held_out is None else [plan.held_out])]


def _rows_numbers(plan: Plan, spec: AnySpec) -> tuple[int, int]:
    """The numbers of the rows, with those of a split, and of their frozen outputs and order."""
    n = sum(source.n_samples * has_rows(source) for source in _sources(plan))
    split = plan.n_validation and n
    frozen = n * spec.layers[0].out_features + 2 * n * bool(plan.batch_size)
    return (n + split) * (spec.in_features + spec.out_features + 1), frozen


class Sizes(Protocol):
    """What a spec and the layers that it describes both know."""

    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def layers(self) -> "Sequence[Sizes]": ...


def step_cost(plan: Plan, spec: Sizes) -> int:
    """Multiplications of one step, about."""
    rows = spec.in_features if plan.path == "moments" else 3 * (plan.batch_size or plan.n_train)
    return rows * sum(layer.rank * (layer.in_features + layer.out_features) for layer in spec.layers)


def by_rows_alone(spec: AnySpec) -> bool:
    """Whether moments do not say all that a model needs."""
    return spec.dropout > 0 or spec.use_dora or len(spec.layers) > 1


def path_for(plan: Plan, spec: AnySpec, max_moments_bytes: int) -> Path:
    """From moments where they say all that the loss needs, fit, and cost less than the rows."""
    must = plan.optimizer == "closed_form" or not has_rows(plan.data)
    if not must and (plan.loss != "mse" or plan.batch_size is not None or by_rows_alone(spec)):
        return "batch"
    size = spec.in_features + spec.out_features
    needed = FLOAT64_BYTES * spec.in_features * size
    gathered = isinstance(plan.data, Stored) and plan.data.gathered and not plan.n_validation
    if must:
        if needed > max_moments_bytes:
            detail = f"the moments of {spec.in_features} → {spec.out_features} take {needed} bytes"
            raise LimitExceeded(
                f"{detail}; {max_moments_bytes} are allowed (LORA_MOMENTS_MIB)",
                Fault("/in_features", detail),
                bytes_needed=needed,
                bytes_allowed=max_moments_bytes,
            )
        return "moments"
    epochs = plan.epochs or 1
    one_pass = 0 if gathered else plan.n_train * spec.in_features * size
    by_moments = one_pass + epochs * spec.rank * spec.in_features * size
    by_rows = ROW_COST * epochs * plan.n_train * spec.rank * size
    return "moments" if needed <= max_moments_bytes and by_moments < by_rows else "batch"
