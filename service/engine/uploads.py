"""What is uploaded to a data set: rows or their moments, checked, and as they are kept."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.codecs.message import Arrays
from service.errors import Fault, LimitExceeded, NonFinite, ShapeMismatch, Validation
from service.lora.spec import FLOAT32_BYTES, MAX_FEATURES
from service.training.cost import FLOAT64_BYTES
from service.training.digests import digest_of_rows
from service.training.moments import MATRICES, Moments, as_arrays, from_arrays, of_rows
from service.training.sources import MAX_COUNTED, MAX_SAMPLES, Stored, check_rows, targets_of

GATHER_COPIES = 3  # of the moments, while they are summed up
COUNTS = "counts"
MOMENTS = {COUNTS, *MATRICES}
SUCH_SUMS = "is symmetric, and whose entries are no greater than those of the diagonal allow"
ROUNDING = 1e-6  # of what sums of rows, taken in any order, may be off by


@dataclass(frozen=True, eq=False)
class Upload:
    """Rows that were sent: what they are, the arrays, and their moments where there are some."""

    source: Stored
    rows: Arrays
    moments: Moments | None

    @property
    def nbytes(self) -> int:
        """Memory of the rows, and of the moments."""
        size = self.source.in_features + (self.source.out_features or 0)
        moments = FLOAT64_BYTES * ((self.source.in_features + 1) * size + 3) if self.moments is not None else 0
        return sum(array.nbytes for array in self.rows.values()) * self.source.kept + moments


def is_moments(arrays: Arrays) -> bool:
    """Whether what was sent are moments, and not rows."""
    return COUNTS in arrays


def reading_bytes(arrays: Arrays, max_moments_bytes: int) -> int:
    """Bytes that reading an upload takes: its rows as float32, and sums where moments are gathered."""
    if is_moments(arrays):
        return GATHER_COPIES * FLOAT64_BYTES * sum(array.size for array in arrays.values())
    x, y = arrays.get("x"), arrays.get("y")
    moments = 0
    if x is not None and y is not None and x.ndim == y.ndim == 2:
        moments = FLOAT64_BYTES * x.shape[1] * (x.shape[1] + y.shape[1])
    rows = FLOAT32_BYTES * sum(array.size for array in arrays.values())
    return rows + GATHER_COPIES * moments * (moments <= max_moments_bytes)


def read(arrays: Arrays, max_moments_bytes: int, keep_rows: bool) -> Upload:
    """The tensors x, y and perhaps weight of an upload, or those of moments.

    Raises:
        ShapeMismatch, Validation, NonFinite: with the tensor, what was expected and what came.
        LimitExceeded: when neither the rows nor their moments could be kept.
    """
    if is_moments(arrays):
        return read_moments(arrays, max_moments_bytes)
    rows = {name: _converted(name, array) for name, array in arrays.items()}
    x, y = rows.get("x"), rows.get("y")
    if x is None or y is None or not set(rows) <= {"x", "y", "weight"}:
        detail = f"the file holds {', '.join(sorted(rows))[:120] or 'nothing'}; it must hold x, y, and perhaps weight"
        raise Validation(detail, Fault("", detail))
    if x.ndim != 2 or not x.size or y.ndim not in (1, 2) or not y.size:
        detail = f"x has shape {list(x.shape)} and y {list(y.shape)}; they must be [n, in] and [n, out] or [n], n > 0"
        raise ShapeMismatch(detail, Fault("/x", detail))
    classes = y.ndim == 1
    if classes and y.dtype.kind != "i":
        detail = "y has one number per row that is not an integer; classes are integers, other targets are [n, out]"
        raise ShapeMismatch(detail, Fault("/y", detail))
    source = Stored(
        id="",
        n_samples=len(x),
        targets=targets_of(y),
        in_features=x.shape[1],
        out_features=None if classes else y.shape[1],
        classes=int(y.max()) + 1 if classes and len(y) else 0,
        weighted="weight" in rows,
        kept=keep_rows,
        digest=digest_of_rows(rows),
        gathered=not classes and FLOAT64_BYTES * x.shape[1] * (x.shape[1] + y.shape[-1]) <= max_moments_bytes,
    )
    check_rows(rows, classes, x.shape[1], source.classes if classes else y.shape[1], "")
    if not keep_rows and not source.gathered:
        detail = "keep_rows is false, which leaves nothing but the moments of the data, and "
        if classes:
            detail += "classes have none; leave keep_rows out"
            raise Validation(detail, Fault("/keep_rows", detail))
        detail += f"theirs would take more than {max_moments_bytes} bytes (LORA_MOMENTS_MIB)"
        raise LimitExceeded(detail, Fault("/keep_rows", detail))
    return Upload(source, rows, of_rows(rows) if source.gathered else None)


def read_moments(arrays: Arrays, max_bytes: int) -> Upload:
    """Moments, as `training.moments.as_arrays` names them, of rows that are elsewhere.

    Raises:
        ShapeMismatch, Validation, NonFinite, LimitExceeded: with the tensor, what was expected and what came.
    """
    if set(arrays) != MOMENTS:
        detail = f"the moments are {', '.join(sorted(arrays))[:120]}; they must be {', '.join(sorted(MOMENTS))}"
        raise Validation(detail, Fault("", detail))
    inputs, outputs = (arrays[name].size for name in ("x_mean", "y_mean"))
    for name, shape in (
        (COUNTS, (3,)),
        ("x_mean", (inputs,)),
        ("y_mean", (outputs,)),
        ("xx", (inputs, inputs)),
        ("xy", (inputs, outputs)),
    ):
        if arrays[name].shape != shape or not arrays[name].size:
            is_so = f"{name} has shape {list(arrays[name].shape)}"
            detail = f"{is_so}; beside x_mean and y_mean it must be {list(shape)}, with no 0"
            raise ShapeMismatch(detail, Fault(f"/{name}", detail))
        if not np.isfinite(arrays[name]).all():
            detail = f"{name} holds numbers that are not finite"
            raise NonFinite(detail, Fault(f"/{name}", detail))
    needed = FLOAT64_BYTES * inputs * (inputs + outputs)
    if max(inputs, outputs) > MAX_FEATURES or needed > max_bytes:
        detail = f"moments of {inputs} → {outputs} take {needed} bytes; {max_bytes} are allowed (LORA_MOMENTS_MIB)"
        raise LimitExceeded(detail, Fault("/xx", detail), bytes_needed=needed, bytes_allowed=max_bytes)
    rows, weight, yy = (float(number) for number in arrays[COUNTS])
    counted = 1 <= rows <= MAX_COUNTED and rows == int(rows)
    for holds, place, detail in (
        (counted, "counts/0", f"the rows are {rows:g}; their number is 1 to {MAX_COUNTED}"),
        (weight > 0, "counts/1", f"the weights add up to {weight:g}; it must be above 0"),
        (yy >= 0, "counts/2", f"the squares about y_mean add up to {yy:g}; it is at least 0"),
        (_are_of_rows(arrays["xx"]), "xx", f"xx is no sum of w (x - x_mean)(x - x_mean)ᵀ, which {SUCH_SUMS}"),
    ):
        if not holds:
            raise Validation(detail, Fault(f"/{place}", detail))
    moments = from_arrays({name: np.array(array, np.float64) for name, array in arrays.items()})
    source = Stored(
        id="",
        n_samples=moments.rows,
        targets="numbers",
        in_features=inputs,
        out_features=outputs,
        weighted=weight != rows,
        kept=False,
        digest=digest_of_rows(as_arrays(moments)),
        gathered=True,
    )
    return Upload(source, {}, moments)


def _are_of_rows(xx: NDArray[Any]) -> bool:
    """Whether second moments may be those of rows: symmetric, and as Cauchy and Schwarz have it."""
    diagonal = np.diagonal(xx).astype(np.float64)
    if (diagonal < 0).any():
        return False
    scale = np.outer(np.sqrt(diagonal), np.sqrt(diagonal))
    return bool((np.abs(xx - xx.T) <= ROUNDING * scale).all() and (np.abs(xx) <= (1 + ROUNDING) * scale).all())


def must_go_on(there: Stored, more: Stored) -> None:
    """Raise ShapeMismatch or LimitExceeded unless more rows are of the kind of those that are there."""
    if there.kept and not more.kept:
        detail = "the data set keeps its rows, and these are moments; put them into one without rows"
        raise ShapeMismatch(detail, Fault("/counts", detail))
    for tensor, expected, given in (
        ("x", f"[n, {there.in_features}]", f"[n, {more.in_features}]"),
        ("y", _targets_shape(there), _targets_shape(more)),
        ("weight", *("[n]" if source.weighted and there.kept else "not there" for source in (there, more))),
    ):
        if expected != given:
            detail = f"{tensor} of these rows is {given}; in the data set it is {expected}"
            raise ShapeMismatch(detail, Fault(f"/{tensor}", detail))
    total = there.n_samples + more.n_samples
    most = MAX_SAMPLES if there.kept else MAX_COUNTED
    if total > most:
        detail = f"the data set would have {total} rows; it is at most {most}"
        raise LimitExceeded(detail, Fault("/x", detail), limit=most)


def _targets_shape(source: Stored) -> str:
    return "[n] classes" if source.out_features is None else f"[n, {source.out_features}]"


def _converted(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in "iu" and name == "y" and array.ndim == 1:
        wrong = array[(array < 0) | (array >= MAX_FEATURES)]
        if len(wrong):
            detail = f"y has the class {wrong[0]}; classes are 0 to {MAX_FEATURES - 1}"
            raise Validation(detail, Fault("/y", detail))
        return array.astype(np.int64)
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        detail = f"{name} holds numbers that are not finite as float32"
        raise NonFinite(detail, Fault(f"/{name}", detail))
    return converted
