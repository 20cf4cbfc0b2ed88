"""Which rows a run learns from, described: drawn, shipped, or sent. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le
from numpy.typing import NDArray

from service import bounds
from service.errors import Fault, NonFinite, ShapeMismatch, Validation
from service.lora.spec import MAX_SETTING, AnySpec, Rank, Seed
from service.training import digits

MAX_SAMPLES = 100_000_000
MAX_COUNTED = 2**53  # rows of which only the moments are there, whose number is one of float64

Samples = Annotated[int, Ge(1), Le(MAX_SAMPLES)]
NotNegative = Annotated[float, Ge(0), Le(MAX_SETTING)]
Targets = Literal["numbers", "probabilities", "classes"]

# What each kind of targets serves as.
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


@dataclass(frozen=True, kw_only=True)
class Random:
    """Inputs and targets N(0, 1): nothing to learn but the noise itself, as in a toy's first run."""

    kind: Literal["random"] = "random"
    n_samples: Samples = 1_000
    seed: Seed | None = None
    targets: ClassVar[Targets] = "numbers"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Inputs N(0, 1), targets from this base under a hidden change of rank `teacher_rank`, plus noise·N(0, 1).

    The seed fixes the change and the rows; `held_out` takes other rows under the same change.
    """

    kind: Literal["teacher"] = "teacher"
    n_samples: Samples = 1_000
    teacher_rank: Rank | None = None
    noise: NotNegative = 0.0
    seed: Seed | None = None
    held_out: bool = False
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
    """Rows that came with the request; they travel beside the plan. `weighted`: each has a weight of its own.

    `digest` names the rows (`training.digests`); None where they have not been looked at.
    """

    n_samples: Samples
    targets: Targets
    weighted: bool = False
    digest: str | None = None
    kind: Literal["inline"] = "inline"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An uploaded data set, as it was when the job was accepted.

    `out_features` is None where the targets are classes, of which `classes` is one more than the greatest. `kept`: its
    rows are there; `gathered`: its moments are. Both travel beside the plan. `digest` names the rows of all uploads.
    """

    id: str
    n_samples: Annotated[int, Ge(1), Le(MAX_COUNTED)]
    targets: Targets
    in_features: int
    out_features: int | None
    classes: int = 0
    weighted: bool = False
    kept: bool = True
    gathered: bool = False
    digest: str | None = None
    kind: Literal["dataset"] = "dataset"


Source = Random | Teacher | Digits | Inline | Stored
SOURCES: dict[str, type[Source]] = {
    "random": Random,
    "teacher": Teacher,
    "digits": Digits,
    "inline": Inline,
    "dataset": Stored,
}


def has_rows(source: Source) -> bool:
    """Whether the rows themselves can be had, and not their moments alone."""
    return not isinstance(source, Stored) or source.kept


def is_weighted(source: Source) -> bool:
    """Whether each row has a weight."""
    return isinstance(source, Inline | Stored) and source.weighted


def settled(source: Source, spec: AnySpec, seed: int, within: str) -> Source:
    """The source with nothing left open for a model: its own seed or the one given, the teacher's rank known.

    Args:
        within: the JSON pointer to the source, for errors.

    Raises:
        Validation, ShapeMismatch: where it does not fit the model.
    """
    bounds.check(source, within)
    if isinstance(source, Digits):
        _check_digits(spec, within)
    if isinstance(source, Stored):
        _check_stored(source, spec, within)
    if isinstance(source, Random | Teacher) and source.seed is None:
        source = replace(source, seed=seed)
    return _taught(source, spec, within) if isinstance(source, Teacher) else source


def check_rows(rows: Mapping[str, NDArray[Any]], classes: bool, inputs: int, outputs: int, within: str) -> None:
    """Check rows that were sent: x (n, inputs), y (n, outputs) or n classes below `outputs`, and perhaps weight (n,).

    Args:
        within: the name of the object that holds them, if one does, for errors.

    Raises:
        ShapeMismatch, Validation, NonFinite: with what was expected and what came.
    """
    n = len(rows["x"])
    shapes = {"x": (n, inputs), "y": (n,) if classes else (n, outputs), "weight": (n,)}
    pointer, prefix = (f"/{within}", f"{within}.") if within else ("", "")
    for name, array in rows.items():
        if array.shape != shapes[name]:
            detail = f"{prefix}{name} has shape {list(array.shape)}; it must be {list(shapes[name])}"
            raise ShapeMismatch(detail, Fault(f"{pointer}/{name}", detail))
    y, weight = rows["y"], rows.get("weight")
    if classes and not ((y >= 0) & (y < outputs)).all():
        wrong = int(y[(y < 0) | (y >= outputs)][0])
        detail = f"{prefix}y has the class {wrong}; the model's classes are 0 to {outputs - 1}"
        raise Validation(detail, Fault(f"{pointer}/y", detail))
    if weight is not None and not (weight >= 0).all():
        detail = f"{prefix}weight has {weight.min()}; a weight is at least 0"
        raise Validation(detail, Fault(f"{pointer}/weight", detail))
    if weight is not None and not 0 < float(weight.sum(dtype=float)) < float("inf"):
        detail = f"{prefix}weight adds up to {weight.sum(dtype=float)}; it must be finite and above 0"
        raise NonFinite(detail, Fault(f"{pointer}/weight", detail))


def targets_of(y: NDArray[Any]) -> Targets:
    """What kind of targets an array holds: integers are classes, numbers from 0 to 1 are probabilities."""
    if y.ndim == 1:
        return "classes"
    return "probabilities" if bool(((y >= 0) & (y <= 1)).all()) else "numbers"


def _taught(source: Teacher, spec: AnySpec, within: str) -> Teacher:
    rank = spec.rank if source.teacher_rank is None else source.teacher_rank
    if rank > spec.narrow:
        detail = f"teacher_rank is {rank}; it is at most min(in_features, out_features) = {spec.narrow}"
        raise Validation(detail, Fault(f"{within}/teacher_rank", detail))
    return replace(source, teacher_rank=rank)


def _check_stored(source: Stored, spec: AnySpec, within: str) -> None:
    outputs = spec.out_features if source.out_features is None else source.out_features
    if (source.in_features, outputs) != (spec.in_features, spec.out_features):
        detail = (
            f"the data set maps {source.in_features} to {outputs} features; the model {spec.in_features} to "
            f"{spec.out_features}"
        )
        raise ShapeMismatch(detail, Fault(within, detail))
    if source.classes > spec.out_features:
        detail = f"the data set has the class {source.classes - 1}; the model's are 0 to {spec.out_features - 1}"
        raise Validation(detail, Fault(within, detail))


def _check_digits(spec: AnySpec, within: str) -> None:
    if spec.in_features != digits.FEATURES or spec.out_features < digits.CLASSES:
        detail = (
            f"digits has {digits.FEATURES} features and {digits.CLASSES} classes; the model maps "
            f"{spec.in_features} features to {spec.out_features} outputs"
        )
        raise ShapeMismatch(detail, Fault(within, detail))
