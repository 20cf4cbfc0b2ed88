"""What one training run is to do: data, loss, optimizer, order. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray

from service import bounds
from service.errors import Fault, LimitExceeded, ShapeMismatch, Validation
from service.lora.spec import FLOAT32_BYTES, Rank, Seed, Spec, refuse
from service.training import digits

MAX_EPOCHS = 10_000
MAX_SAMPLES = 100_000_000
LOOKED_AT = 4_096

Epochs = Annotated[int, Ge(1), Le(MAX_EPOCHS)]
Samples = Annotated[int, Ge(1), Le(MAX_SAMPLES)]
LearningRate = Annotated[float, Gt(0), Le(1e6)]
Beta = Annotated[float, Ge(0), Lt(1)]
NotNegative = Annotated[float, Ge(0), Le(1e6)]
OptimizerName = Literal["adam", "adamw", "sgd"]
LossName = Literal["mse", "mae", "huber", "cross_entropy", "bce_with_logits", "cosine"]
Targets = Literal["numbers", "probabilities", "classes"]

# What each loss compares the outputs with, and what each kind of targets serves as.
LOSS_TARGETS: dict[str, Targets] = {
    "mse": "numbers",
    "mae": "numbers",
    "huber": "numbers",
    "cosine": "numbers",
    "cross_entropy": "classes",
    "bce_with_logits": "probabilities",
}
SERVES_AS: dict[Targets, tuple[Targets, ...]] = {
    "numbers": ("numbers",),
    "probabilities": ("numbers", "probabilities"),
    "classes": ("classes",),
}
TARGETS_IN_WORDS: dict[Targets, str] = {
    "numbers": "numbers of shape (n, out_features)",
    "probabilities": "numbers from 0 to 1 of shape (n, out_features)",
    "classes": "integer classes of shape (n,)",
}
# The settings each optimizer has, with PyTorch's own defaults.
OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "adam": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    "sgd": {"momentum": 0.0, "weight_decay": 0.0},
}
OPTIMIZER_SETTINGS = ("betas", "eps", "momentum", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class Random:
    """Inputs and targets N(0, 1): nothing to learn but the noise itself, as in a toy's first run."""

    kind: Literal["random"] = "random"
    n_samples: Samples = 1_000
    seed: Seed | None = None
    targets: ClassVar[Targets] = "numbers"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Inputs N(0, 1), targets from this base under a hidden change of rank `teacher_rank`, plus noise·N(0, 1)."""

    kind: Literal["teacher"] = "teacher"
    n_samples: Samples = 1_000
    teacher_rank: Rank | None = None
    noise: NotNegative = 0.0
    seed: Seed | None = None
    targets: ClassVar[Targets] = "numbers"


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The UCI optical handwritten digits, 8×8 grey values / 16, ten classes."""

    kind: Literal["digits"] = "digits"
    split: digits.Split = "train"
    targets: ClassVar[Targets] = "classes"

    @property
    def n_samples(self) -> int:
        return digits.ROWS[self.split]


@dataclass(frozen=True, kw_only=True)
class Inline:
    """Rows that came with the request; they travel beside the plan."""

    n_samples: Samples
    targets: Targets
    kind: Literal["inline"] = "inline"


Data = Random | Teacher | Digits | Inline
DATA_KINDS: dict[str, type[Data]] = {"random": Random, "teacher": Teacher, "digits": Digits, "inline": Inline}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training run; the defaults are full-batch Adam on 1,000 random rows for ten epochs.

    A setting that the optimizer does not have is refused; one left None becomes PyTorch's default.

    Raises:
        Validation, LimitExceeded, NonFinite: for a value out of its bounds, or two that do not go together.
    """

    epochs: Epochs = 10
    lr: LearningRate = 0.01
    optimizer: OptimizerName = "adam"
    betas: tuple[Beta, Beta] | None = None
    eps: NotNegative | None = None
    momentum: Beta | None = None
    weight_decay: NotNegative | None = None
    loss: LossName = "mse"
    batch_size: Samples | None = None
    seed: Seed | None = None
    data: Data = Random()

    def __post_init__(self) -> None:
        bounds.check(self)
        bounds.check(self.data, within="/data")
        defaults = OPTIMIZER_DEFAULTS[self.optimizer]
        for name in OPTIMIZER_SETTINGS:
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                refuse(name, f"{self.optimizer} has no {name}; its settings are lr, {', '.join(defaults)}")
        if self.batch_size is not None and self.batch_size > self.data.n_samples:
            refuse("batch_size", f"batch_size is {self.batch_size}; the data has {self.data.n_samples} rows")


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan in JSON's own types."""
    return asdict(plan)


def from_dict(plan: dict[str, Any]) -> Plan:
    """The plan that `as_dict`, or its JSON, describes."""
    data = plan["data"]
    betas = plan["betas"] and tuple(plan["betas"])
    return Plan(**{**plan, "betas": betas, "data": DATA_KINDS[data["kind"]](**data)})


def fitted(plan: Plan, spec: Spec, seed: int, max_bytes: int) -> Plan:
    """The plan with every setting in force for a model: seeds drawn, the teacher's rank known.

    Args:
        seed: taken where the plan has none; the data's seed is the plan's unless it has its own.
        max_bytes: what the data and the run's working memory may take.

    Raises:
        Validation, ShapeMismatch, LimitExceeded: where the data does not fit the model, the loss or the memory.
    """
    _check_targets(plan)
    seed = seed if plan.seed is None else plan.seed
    data = plan.data
    if isinstance(data, Random | Teacher) and data.seed is None:
        data = replace(data, seed=seed)
    if isinstance(data, Teacher):
        data = _taught(data, spec)
    if isinstance(data, Digits):
        _check_digits(spec)
    needed = bytes_needed(plan, spec)
    if needed > max_bytes:
        rows = f"{data.n_samples} rows of {spec.in_features} → {spec.out_features}"
        detail = f"{rows} need {needed} bytes to train on at rank {spec.rank}"
        raise LimitExceeded(
            f"{detail}; {max_bytes} are allowed (LORA_TRAIN_MIB), so use fewer rows or a smaller batch or rank",
            Fault("/data", detail),
            bytes_needed=needed,
            bytes_allowed=max_bytes,
        )
    return replace(plan, seed=seed, data=data)


def check_rows(rows: Mapping[str, NDArray[Any]], plan: Plan, spec: Spec) -> None:
    """Check the rows x and y of inline data against the model and the loss.

    Raises:
        ShapeMismatch, Validation: with what was expected and what came.
    """
    if not isinstance(plan.data, Inline):
        return
    x, y = rows["x"], rows["y"]
    n, classes = len(x), plan.data.targets == "classes"
    for name, array, shape in (
        ("x", x, (n, spec.in_features)),
        ("y", y, (n,) if classes else (n, spec.out_features)),
    ):
        if array.shape != shape:
            detail = f"data.{name} has shape {list(array.shape)}; it must be {list(shape)}"
            raise ShapeMismatch(detail, Fault(f"/data/{name}", detail))
    if classes and not ((y >= 0) & (y < spec.out_features)).all():
        wrong = int(y[(y < 0) | (y >= spec.out_features)][0])
        detail = f"data.y has the class {wrong}; the model's classes are 0 to {spec.out_features - 1}"
        raise Validation(detail, Fault("/data/y", detail))


def targets_of(y: NDArray[Any]) -> Targets:
    """What kind of targets an array holds: integers are classes, numbers from 0 to 1 are probabilities."""
    if y.ndim == 1:
        return "classes"
    return "probabilities" if bool(((y >= 0) & (y <= 1)).all()) else "numbers"


def looked_at(plan: Plan) -> int:
    """How many rows at a time the loss of the trained weights is measured on: small batches would only cost time."""
    n = plan.data.n_samples
    return n if plan.batch_size is None else min(n, max(plan.batch_size, LOOKED_AT))


def bytes_needed(plan: Plan, spec: Spec) -> int:
    """Bytes that a run takes beside its layer.

    They are those of the rows, their frozen outputs and their order, of what one step makes of its batch, and of the
    adapter's copy, its gradient and the optimizer's moments.
    """
    n, size = plan.data.n_samples, spec.in_features + spec.out_features
    copies = 4 * bool(spec.dropout) + bool(plan.batch_size)  # of a batch's inputs
    rows = n * (size + spec.out_features) + 2 * n * bool(plan.batch_size)
    step = looked_at(plan) * (8 * spec.out_features + copies * spec.in_features + 2 * spec.rank)
    hidden = 2 * spec.base_numbers + 2 * n * spec.out_features if isinstance(plan.data, Teacher) else 0
    return FLOAT32_BYTES * (rows + max(step, hidden) + 8 * spec.adapter_numbers)


def _taught(data: Teacher, spec: Spec) -> Teacher:
    narrow = min(spec.in_features, spec.out_features)
    rank = spec.rank if data.teacher_rank is None else data.teacher_rank
    if rank > narrow:
        detail = f"teacher_rank is {rank}; it is at most min(in_features, out_features) = {narrow}"
        raise Validation(detail, Fault("/data/teacher_rank", detail))
    return replace(data, teacher_rank=rank)


def _check_targets(plan: Plan) -> None:
    wanted, given = LOSS_TARGETS[plan.loss], plan.data.targets
    fitting = [name for name, targets in LOSS_TARGETS.items() if targets in SERVES_AS[given]]
    if plan.loss in fitting:
        return
    detail = (
        f"{plan.data.kind} data has {TARGETS_IN_WORDS[given]}; "
        f"the loss {plan.loss} compares outputs with {TARGETS_IN_WORDS[wanted]}"
    )
    raise Validation(f"{detail}; losses that fit this data: {', '.join(fitting)}", Fault("/loss", detail))


def _check_digits(spec: Spec) -> None:
    if spec.in_features != digits.FEATURES or spec.out_features < digits.CLASSES:
        detail = (
            f"digits has {digits.FEATURES} features and {digits.CLASSES} classes; the model maps "
            f"{spec.in_features} features to {spec.out_features} outputs"
        )
        raise ShapeMismatch(detail, Fault("/data", detail))
