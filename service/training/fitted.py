"""A plan with every setting in force for a model: nothing left open, and all of it checked. Imports no torch."""

from dataclasses import replace

from service.errors import Fault, LimitExceeded, Validation
from service.lora.spec import AnySpec, refuse
from service.training.cost import MOMENTS_BYTES, bytes_needed, path_for
from service.training.plan import LOSS_TARGETS, Plan
from service.training.sources import SERVES_AS, TARGETS_IN_WORDS, Inline, Source, Stored, Teacher, has_rows, settled


def fitted(plan: Plan, spec: AnySpec, seed: int, max_bytes: int, max_moments_bytes: int = MOMENTS_BYTES) -> Plan:
    """The plan with every setting in force for a model: seeds drawn, the teacher's rank and the path known.

    Args:
        seed: taken where the plan has none; the data's seed is the plan's unless it has its own.
        max_bytes: what the data and the run's working memory may take.
        max_moments_bytes: what the moments of the data may take.

    Raises:
        Validation, ShapeMismatch, LimitExceeded: where the data does not fit the model, the loss or the memory.
    """
    if plan.optimizer == "closed_form" and (spec.use_dora or len(spec.layers) > 1):
        what = "a model with use_dora" if spec.use_dora else "a model of several layers"
        refuse("optimizer", f"closed_form solves for the A and B of one layer; {what} takes another optimizer")
    seed = seed if plan.seed is None else plan.seed
    _check_targets(plan.data, plan.loss, spec, "/data")
    plan = replace(plan, seed=seed, data=settled(plan.data, spec, seed, "/data"))
    if plan.held_out is not None:
        source = settled(_apart(plan.held_out, plan.data), spec, (seed + 1) % 2**53, "/validation")
        _check_targets(source, plan.loss, spec, "/validation")
        plan = replace(plan, validation=source)
    _check_rows_there(plan, spec)
    plan = replace(plan, path=plan.path or path_for(plan, spec, max_moments_bytes))
    if plan.path == "batch" and plan.held_out is not None and not has_rows(plan.held_out):
        refuse(
            "validation",
            "the data set was uploaded with keep_rows false; a run that goes by rows needs those to validate on",
        )
    needed = bytes_needed(plan, spec)
    if needed > max_bytes:
        rows = f"{plan.data.n_samples} rows of {spec.in_features} → {spec.out_features}"
        detail = f"{rows} need {needed} bytes to train on at rank {spec.rank}"
        raise LimitExceeded(
            f"{detail}; {max_bytes} are allowed (LORA_TRAIN_MIB), so use fewer rows or a smaller batch or rank",
            Fault("/data", detail),
            bytes_needed=needed,
            bytes_allowed=max_bytes,
        )
    return plan


def _apart(held_out: Source, data: Source) -> Source:
    """Rows to validate on that are not those of the training: another seed, or for a teacher, the same one again."""
    if isinstance(held_out, Teacher) and isinstance(data, Teacher) and held_out.seed is None:
        rank = held_out.teacher_rank or data.teacher_rank
        return replace(held_out, seed=data.seed, teacher_rank=rank, held_out=True)
    return held_out


def _check_targets(source: Source, loss: str, spec: AnySpec, within: str) -> None:
    wanted, given = LOSS_TARGETS[loss], source.targets
    fitting = [name for name, targets in LOSS_TARGETS.items() if targets in SERVES_AS[given]]
    at = "/loss" if within == "/data" else within
    if given == "classes" and spec.out_features == 1 and isinstance(source, Inline | Stored):
        detail = f"{source.kind} data has integer classes, and one output tells no classes apart"
        raise Validation(
            f"{detail}; use bce_with_logits, or another loss of numbers, with y as [[0], [1]]", Fault(at, detail)
        )
    if loss in fitting:
        return
    detail = (
        f"{source.kind} data has {TARGETS_IN_WORDS[given]}; "
        f"the loss {loss} compares outputs with {TARGETS_IN_WORDS[wanted]}"
    )
    raise Validation(f"{detail}; losses that fit this data: {', '.join(fitting)}", Fault(at, detail))


def _check_rows_there(plan: Plan, spec: AnySpec) -> None:
    """Rows that are not there can be neither held out, nor batched, nor dropped from."""
    if isinstance(plan.validation, float) and plan.data.n_samples < 2:
        refuse("validation", "the data has 1 row; at least 2 are needed to hold some out")
    needing = {
        "loss": plan.loss != "mse",
        "batch_size": plan.batch_size is not None,
        "validation": isinstance(plan.validation, float),
        "dropout": spec.dropout > 0 and plan.optimizer != "closed_form",
        "use_dora": spec.use_dora,
        "layers": len(spec.layers) > 1,
    }
    if any(needing.values()) and not has_rows(plan.data):
        why = next(name for name, needs in needing.items() if needs)
        refuse(why, f"the data set was uploaded with keep_rows false; this {why} needs its rows")
