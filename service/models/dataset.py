"""An uploaded data set as a value: its rows, their moments, or both; each upload makes the next value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.training.digests import chained
from service.training.moments import Moments, as_arrays
from service.training.sources import Stored

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Rows x (n, in), y, (n, out) numbers or (n,) classes, and perhaps weight (n,).

    `source` says what they are, and how many. `columns` has room for at least that many rows by name, or nothing when
    the rows are not kept; later values write behind the rows of this one. `moments` is None where there are none.
    """

    id: str
    source: Stored
    columns: Arrays
    moments: Moments | None
    created_at: datetime
    updated_at: datetime
    uploads: int = 1  # that made it

    @property
    def nbytes(self) -> int:
        """Memory of the rows, room for more included, and of the moments."""
        return sum(array.nbytes for array in self.arrays(whole=True).values())

    @property
    def moments_bytes(self) -> int:
        """Memory of the moments alone."""
        return 0 if self.moments is None else sum(array.nbytes for array in as_arrays(self.moments).values())

    def arrays(self, *, whole: bool = False) -> dict[str, NDArray[Any]]:
        """The rows by name, and the moments as `moments.…`; with `whole` the room behind the rows too."""
        rows = {name: column if whole else column[: self.source.n_samples] for name, column in self.columns.items()}
        moments = {} if self.moments is None else as_arrays(self.moments)
        return {**rows, **{f"moments.{name}": array for name, array in moments.items()}}

    def room_needed(self, more: Stored) -> int:
        """Bytes that this value's rows take more once these are added."""
        return sum(
            _capacity(len(column), self.source.n_samples + more.n_samples) * column[:1].nbytes - column.nbytes
            for column in self.columns.values()
        )

    def grown(self, rows: Arrays, source: Stored, moments: Moments | None, at: datetime) -> "Dataset":
        """This data set with more rows; only the newest value may grow."""
        n = self.source.n_samples
        narrow = source.targets if source.targets == self.source.targets else "numbers"
        return replace(
            self,
            source=replace(
                self.source,
                n_samples=n + source.n_samples,
                targets=narrow,
                classes=max(self.source.classes, source.classes),
                weighted=self.source.weighted or source.weighted,
                digest=chained(self.source.digest, source.digest),
            ),
            columns={name: _appended(column, n, rows[name]) for name, column in self.columns.items()},
            moments=None if self.moments is None or moments is None else self.moments + moments,
            updated_at=at,
            uploads=self.uploads + 1,
        )


def _capacity(there: int, needed: int) -> int:
    """Room doubles when it is used up, so that each row is moved twice at most on average."""
    return there if needed <= there else max(2 * there, needed)


def _appended(column: NDArray[Any], n: int, more: NDArray[Any]) -> NDArray[Any]:
    room = _capacity(len(column), n + len(more))
    if room > len(column):
        wider = np.empty((room, *column.shape[1:]), column.dtype)
        wider[:n] = column[:n]
        column = wider
    column[n : n + len(more)] = more
    return column
