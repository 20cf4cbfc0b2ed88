"""What one training run is to do: data, loss, optimizer, order. Imports no torch."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from service import bounds
from service.lora.spec import MAX_SETTING, Seed, refuse
from service.training.sources import (
    SOURCES,
    NotNegative,
    Random,
    Samples,
    Source,
    Targets,
)

MAX_EPOCHS = 10_000
Epochs = Annotated[int, Ge(1), Le(MAX_EPOCHS)]
LearningRate = Annotated[float, Gt(0), Le(MAX_SETTING)]
Beta = Annotated[float, Ge(0), Lt(1)]
Positive = Annotated[float, Gt(0), Le(MAX_SETTING)]
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
