"""Data sets that are uploaded in pieces: each checked, converted to float32, and gathered into moments."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.clock import instant
from service.codecs.message import Arrays
from service.errors import Fault, LimitExceeded, NonFinite, ShapeMismatch, Validation
from service.ids import Mint
from service.lora.spec import FLOAT32_BYTES, MAX_FEATURES
from service.models import dataset_rows
from service.models.budget import Budget
from service.models.dataset import Dataset
from service.models.shelf import Also, Shelf
from service.models.store import News, Store
from service.training.arrays import backend_of
from service.training.cost import FLOAT64_BYTES
from service.training.digests import digest_of_rows
from service.training.moments import Moments, gathered
from service.training.sources import MAX_SAMPLES, Stored, check_rows, targets_of

GATHER_COPIES = 3  # of the moments, while they are summed up


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


class Datasets(Shelf):
    """The data sets, and how rows get into them."""

    def __init__(self, max_datasets: int, max_moments_bytes: int, budget: Budget, store: Store | None = None) -> None:
        super().__init__(max_datasets, budget, store)
        self._max_moments_bytes = max_moments_bytes
        self._new_id = Mint("dat", (dataset.id for dataset in self.all()))

    def learn(self, news: News) -> list[str]:
        """As `Shelf.learn`; ids that are made here are greater."""
        found = super().learn(news)
        for dataset_id in found:
            self._new_id.saw(dataset_id)
        return found

    def upload(self, arrays: Arrays, *, keep_rows: bool = True, also: Also = lambda dataset: ()) -> Dataset:
        """A new data set of rows x, y and perhaps weight; without `keep_rows` only their moments are kept.

        Args:
            also: what is to be stored together with it.

        Raises:
            Validation, ShapeMismatch, NonFinite, LimitExceeded, CapacityExhausted
        """
        self.must_have_room()
        with self._read(arrays, keep_rows) as sent:
            return self._added(sent, keep_rows, also)

    def _added(self, sent: Upload, keep_rows: bool, also: Also) -> Dataset:
        def make() -> Dataset:
            dataset_id, at = self._new_id(), instant().wall
            return Dataset(
                id=dataset_id,
                source=replace(sent.source, id=dataset_id),
                columns=sent.rows if keep_rows else {},
                moments=sent.moments,
                created_at=at,
                updated_at=at,
            )

        return self.add(make, sent.nbytes, also)

    def append(self, dataset_id: str, arrays: Arrays, also: Also = lambda dataset: ()) -> Dataset:
        """The data set with more rows, which jobs from now on are trained on.

        Args:
            also: what is to be stored together with them.

        Raises:
            DatasetNotFound, Validation, ShapeMismatch, NonFinite, LimitExceeded, CapacityExhausted
        """
        with self._read(arrays, self.get(dataset_id).source.kept) as sent:

            def room(dataset: Dataset) -> int:
                must_go_on(dataset.source, sent.source)
                return dataset.room_needed(sent.source)

            return self.grow(
                dataset_id,
                room,
                lambda dataset: dataset.grown(sent.rows, sent.source, sent.moments, instant().wall),
                lambda grown: chain(dataset_rows.added(grown, sent.source, sent.rows, sent.moments), also(grown)),
            )

    def source(self, dataset_id: str) -> Stored:
        """A data set as what to train on.

        Raises:
            DatasetNotFound
        """
        return self.get(dataset_id).source

    @contextmanager
    def _read(self, arrays: Arrays, keep_rows: bool) -> Iterator[Upload]:
        """What was sent, once there is memory to look at it."""
        with self.budget.held(reading_bytes(arrays, self._max_moments_bytes)):
            yield read(arrays, self._max_moments_bytes, keep_rows)


def reading_bytes(arrays: Arrays, max_moments_bytes: int) -> int:
    """Bytes that reading an upload takes: its rows as float32, and sums where moments are gathered."""
    x, y = arrays.get("x"), arrays.get("y")
    moments = 0
    if x is not None and y is not None and x.ndim == y.ndim == 2:
        moments = FLOAT64_BYTES * x.shape[1] * (x.shape[1] + y.shape[1])
    rows = FLOAT32_BYTES * sum(array.size for array in arrays.values())
    return rows + GATHER_COPIES * moments * (moments <= max_moments_bytes)


def read(arrays: Arrays, max_moments_bytes: int, keep_rows: bool) -> Upload:
    """The tensors x, y and perhaps weight of an upload.

    Raises:
        ShapeMismatch, Validation, NonFinite: with the tensor, what was expected and what came.
        LimitExceeded: when neither the rows nor their moments could be kept.
    """
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
    return Upload(source, rows, _moments(rows) if source.gathered else None)


def must_go_on(there: Stored, more: Stored) -> None:
    """Raise ShapeMismatch or LimitExceeded unless more rows are of the kind of those that are there."""
    for tensor, expected, given in (
        ("x", f"[n, {there.in_features}]", f"[n, {more.in_features}]"),
        ("y", _targets_shape(there), _targets_shape(more)),
        ("weight", *("[n]" if source.weighted else "not there" for source in (there, more))),
    ):
        if expected != given:
            detail = f"{tensor} of these rows is {given}; in the data set it is {expected}"
            raise ShapeMismatch(detail, Fault(f"/{tensor}", detail))
    total = there.n_samples + more.n_samples
    if total > MAX_SAMPLES:
        detail = f"the data set would have {total} rows; it is at most {MAX_SAMPLES}"
        raise LimitExceeded(detail, Fault("/x", detail), limit=MAX_SAMPLES)


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


def _moments(rows: Arrays) -> Moments:
    x, y, weight = (None if rows.get(name) is None else torch.from_numpy(rows[name]) for name in ("x", "y", "weight"))
    assert x is not None, "x and y are there"
    assert y is not None, "x and y are there"
    return gathered(backend_of(x), x, y, weight)
