"""What one training run is to do: data, loss, optimizer, order. Imports no torch."""

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from service import bounds
from service.errors import Fault, LimitExceeded, Validation
from service.lora.spec import FLOAT32_BYTES, Seed, Spec, refuse
from service.training.sources import (
    SERVES_AS,
    SOURCES,
    TARGETS_IN_WORDS,
    NotNegative,
    Random,
    Samples,
    Source,
    Stored,
    Targets,
    Teacher,
    has_rows,
    settled,
)

MAX_EPOCHS = 10_000
LOOKED_AT = 4_096
FLOAT64_BYTES = 8
BLOCK_NUMBERS = 2**18  # of a block of rows that is gathered into moments
MOMENTS_BYTES = 256 * 2**20
OPTIMUM_FEATURES = 1_024  # beyond, data is not gathered for the optimum alone
MOMENTS_COPIES = 14  # matrices as large as the moments that are there at once while the optimum is computed
ADAPTER_COPIES = 14  # with the gradient, the optimizer's memory, the best so far, and the state at the end

# What a multiplication of the row loop costs in those of one pass into moments: thin products run far below a core's
# peak, and each epoch reads and writes the outputs several times. Measured at 64→10 and 384→384.
ROW_COST = 4

Epochs = Annotated[int, Ge(1), Le(MAX_EPOCHS)]
LearningRate = Annotated[float, Gt(0), Le(1e6)]
Beta = Annotated[float, Ge(0), Lt(1)]
Positive = Annotated[float, Gt(0), Le(1e6)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Patience = Annotated[int, Ge(1), Le(MAX_EPOCHS)]
OptimizerName = Literal["adam", "adamw", "sgd", "closed_form"]
LossName = Literal["mse", "mae", "huber", "cross_entropy", "bce_with_logits", "cosine"]
ScheduleName = Literal["constant", "linear", "cosine"]
Path = Literal["moments", "batch"]

# What each loss compares the outputs with.
LOSS_TARGETS: dict[str, Targets] = {
    "mse": "numbers",
    "mae": "numbers",
    "huber": "numbers",
    "cosine": "numbers",
    "cross_entropy": "classes",
    "bce_with_logits": "probabilities",
}
_LOOP = {"epochs": 10, "lr": 0.01, "schedule": "constant", "warmup_epochs": 0.0, "lr_b_ratio": 1.0}
_ADAM = {**_LOOP, "betas": (0.9, 0.999), "eps": 1e-8}
# The settings each optimizer has, with PyTorch's own defaults.
OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "adam": {**_ADAM, "weight_decay": 0.0, "max_grad_norm": None, "early_stopping": None},
    "adamw": {**_ADAM, "weight_decay": 0.01, "max_grad_norm": None, "early_stopping": None},
    "sgd": {**_LOOP, "momentum": 0.0, "weight_decay": 0.0, "max_grad_norm": None, "early_stopping": None},
    "closed_form": {"epochs": 1},
}
OPTIMIZER_SETTINGS = tuple(dict.fromkeys(name for settings in OPTIMIZER_DEFAULTS.values() for name in settings))


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop after `patience` epochs in a row whose loss is not at least `min_delta` below the best, and keep the best.

    The loss is the validation loss where there is one, otherwise the training loss.
    """

    patience: Patience
    min_delta: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training run; the defaults are full-batch Adam on 1,000 random rows for ten epochs.

    A setting that the optimizer does not have is refused; one left None becomes its default, which for those of
    `torch.optim` is PyTorch's. `path` says how an epoch is computed: from the data's moments, or from its rows.

    Raises:
        Validation, LimitExceeded, NonFinite: for a value out of its bounds, or two that do not go together.
    """

    epochs: Epochs | None = None
    lr: LearningRate | None = None
    optimizer: OptimizerName = "adam"
    betas: tuple[Beta, Beta] | None = None
    eps: NotNegative | None = None
    momentum: Beta | None = None
    weight_decay: NotNegative | None = None
    schedule: ScheduleName | None = None
    warmup_epochs: NotNegative | None = None
    max_grad_norm: Positive | None = None
    lr_b_ratio: Positive | None = None
    loss: LossName = "mse"
    batch_size: Samples | None = None
    seed: Seed | None = None
    data: Source = field(default_factory=Random)
    validation: Fraction | Source | None = None
    early_stopping: EarlyStopping | None = None
    continue_from: str | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        bounds.check(self)
        bounds.check(self.data, within="/data")
        if self.early_stopping is not None:
            bounds.check(self.early_stopping, within="/early_stopping")
        self._take_defaults()
        if self.optimizer == "closed_form" and (self.loss, self.epochs, self.batch_size) != ("mse", 1, None):
            refuse("optimizer", "closed_form solves mse on all rows in one step: loss mse, epochs 1 and no batch_size")
        if self.warmup_epochs is not None and self.warmup_epochs > (self.epochs or 1):
            refuse("warmup_epochs", f"warmup_epochs is {self.warmup_epochs}; the run has {self.epochs} epochs")
        if self.batch_size is not None and self.batch_size > self.n_train:
            refuse("batch_size", f"batch_size is {self.batch_size}; the data has {self.n_train} rows to train on")

    def _take_defaults(self) -> None:
        defaults = OPTIMIZER_DEFAULTS[self.optimizer]
        for name in OPTIMIZER_SETTINGS:
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                refuse(name, f"{self.optimizer} has no {name}; its settings are {', '.join(defaults)}")

    @property
    def n_validation(self) -> int:
        """Rows of the data that are held out."""
        held_out = self.validation if isinstance(self.validation, float) else 0.0
        return min(self.data.n_samples - 1, max(1, round(held_out * self.data.n_samples))) if held_out else 0

    @property
    def n_train(self) -> int:
        """Rows of the data that are trained on."""
        return self.data.n_samples - self.n_validation

    @property
    def held_out(self) -> Source | None:
        """Data of its own that the run is validated on."""
        return None if isinstance(self.validation, float) else self.validation


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan in JSON's own types."""
    return asdict(plan)


def from_dict(plan: dict[str, Any]) -> Plan:
    """The plan that `as_dict`, or its JSON, describes."""
    return Plan(
        **{
            **plan,
            "betas": plan["betas"] and tuple(plan["betas"]),
            "data": _source(plan["data"]),
            "validation": _source(plan["validation"]) if isinstance(plan["validation"], dict) else plan["validation"],
            "early_stopping": plan["early_stopping"] and EarlyStopping(**plan["early_stopping"]),
        }
    )


def _source(source: dict[str, Any]) -> Source:
    return SOURCES[source["kind"]](**source)


def fitted(plan: Plan, spec: Spec, seed: int, max_bytes: int, max_moments_bytes: int = MOMENTS_BYTES) -> Plan:
    """The plan with every setting in force for a model: seeds drawn, the teacher's rank and the path known.

    Args:
        seed: taken where the plan has none; the data's seed is the plan's unless it has its own.
        max_bytes: what the data and the run's working memory may take.
        max_moments_bytes: what the moments of the data may take.

    Raises:
        Validation, ShapeMismatch, LimitExceeded: where the data does not fit the model, the loss or the memory.
    """
    seed = seed if plan.seed is None else plan.seed
    _check_targets(plan.data, plan.loss)
    plan = replace(plan, seed=seed, data=settled(plan.data, spec, seed, "/data"))
    if plan.held_out is not None:
        # Rows drawn from the same seed would be the very rows of the training.
        source = settled(plan.held_out, spec, (seed + 1) % 2**53, "/validation")
        _check_targets(source, plan.loss, "/validation")
        plan = replace(plan, validation=source)
    _check_rows_there(plan, spec)
    plan = replace(plan, path=plan.path or _path(plan, spec, max_moments_bytes))
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


def looked_at(plan: Plan) -> int:
    """How many rows at a time the loss of the trained weights is measured on: small batches would only cost time."""
    return plan.n_train if plan.batch_size is None else min(plan.n_train, max(plan.batch_size, LOOKED_AT))


def bytes_needed(plan: Plan, spec: Spec) -> int:
    """Bytes that a run takes beside its layer.

    They are those of the rows, their frozen outputs and their order, of what one step makes of its batch, and of the
    adapter's copy, its gradient and the optimizer's memory; where it learns from moments, of these, of the block of
    rows that is gathered, and of the adapter in double precision. The optimum of full-batch mse takes moments too.
    """
    sources = [plan.data, *([] if plan.held_out is None else [plan.held_out])]
    n, size = sum(source.n_samples * has_rows(source) for source in sources), spec.in_features + spec.out_features
    drawn = max(
        2 * spec.base_numbers + 2 * source.n_samples * spec.out_features if isinstance(source, Teacher) else 0
        for source in sources
    )
    split = plan.n_validation and n
    rows = (n + split) * (size + 1)
    moments = MOMENTS_COPIES * spec.in_features * (size + 1) + 2 * BLOCK_NUMBERS
    if plan.path == "moments":
        numbers = moments + ADAPTER_COPIES * spec.adapter_numbers + spec.base_numbers
        return FLOAT32_BYTES * (rows + drawn) + FLOAT64_BYTES * numbers
    frozen = n * spec.out_features + 2 * n * bool(plan.batch_size)
    copies = 4 * bool(spec.dropout) + bool(plan.batch_size)  # of a batch's inputs
    step = looked_at(plan) * (8 * spec.out_features + copies * spec.in_features + 2 * spec.rank)
    optimum = plan.loss == "mse" and plan.batch_size is None and spec.in_features <= OPTIMUM_FEATURES
    run = rows + frozen + max(step, drawn) + ADAPTER_COPIES * spec.adapter_numbers
    return FLOAT32_BYTES * run + FLOAT64_BYTES * optimum * moments


def _path(plan: Plan, spec: Spec, max_moments_bytes: int) -> Path:
    """From moments where they say all that the loss needs, fit, and cost less than the rows."""
    must = plan.optimizer == "closed_form" or not has_rows(plan.data)
    if not must and (plan.loss != "mse" or plan.batch_size is not None or spec.dropout):
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


def _check_targets(source: Source, loss: str, within: str = "/data") -> None:
    wanted, given = LOSS_TARGETS[loss], source.targets
    fitting = [name for name, targets in LOSS_TARGETS.items() if targets in SERVES_AS[given]]
    if loss in fitting:
        return
    detail = (
        f"{source.kind} data has {TARGETS_IN_WORDS[given]}; "
        f"the loss {loss} compares outputs with {TARGETS_IN_WORDS[wanted]}"
    )
    fault = Fault("/loss" if within == "/data" else within, detail)
    raise Validation(f"{detail}; losses that fit this data: {', '.join(fitting)}", fault)


def _check_rows_there(plan: Plan, spec: Spec) -> None:
    """Rows that are not there can be neither held out, nor batched, nor dropped from."""
    if isinstance(plan.validation, float) and plan.data.n_samples < 2:
        refuse("validation", "the data has 1 row; at least 2 are needed to hold some out")
    needing = {
        "loss": plan.loss != "mse",
        "batch_size": plan.batch_size is not None,
        "validation": isinstance(plan.validation, float),
        "dropout": spec.dropout > 0 and plan.optimizer != "closed_form",
    }
    if any(needing.values()) and not has_rows(plan.data):
        why = next(name for name, needs in needing.items() if needs)
        refuse(why, f"the data set was uploaded with keep_rows false; this {why} needs its rows")
