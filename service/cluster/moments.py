"""The moments of rows that lie wherever Ray Data reads from, summed up where they are read."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import ray.data
import ray.util.client
from numpy.typing import NDArray

from service.bounds import cut
from service.cluster.connecting import NoCluster, connect
from service.codecs.columns import place_of
from service.codecs.message import pack, unpack
from service.errors import Validation
from service.training.moments import Moments, as_arrays, from_arrays, of_rows

TOGETHER = 16  # sums of blocks that a task adds up
SUMS = "sums"  # the column in which they travel

READERS: dict[str, Callable[[str], ray.data.Dataset]] = {
    "parquet": ray.data.read_parquet,
    "csv": ray.data.read_csv,
    "npy": ray.data.read_numpy,
}

Batch = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Columns:
    """Which columns are the targets y, the inputs x (None: all others), and the weight of a row, if any.

    A column is named, and may hold vectors. Where there is one alone, as in npy, its numbers count as columns, which
    are called 1, 2, … from the first, and -1, -2, … from the last.
    """

    y: Sequence[str]
    x: Sequence[str] | None = None
    weight: str | None = None


@contextmanager
def at(address: str | None) -> Iterator[None]:
    """Have Ray work on a cluster, or on this machine's cores where there is none, and say no more than how far it is.

    Raises:
        Validation: where no cluster is at the address.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        connect(address)
    except NoCluster as error:
        raise Validation(str(error)) from None
    try:
        yield
    finally:
        ray.shutdown()


def read(path: str, form: str | None = None) -> ray.data.Dataset:
    """The rows of a file, a folder or a store that Ray Data reads, in the form that the ending of its name says.

    Raises:
        Validation: for a form that is none of `READERS`.
    """
    form = form or path.rstrip("/*").rpartition(".")[2]
    if form not in READERS:
        raise Validation(f"{cut(path, 200)} is in no form that is read here; those are {', '.join(READERS)}")
    return READERS[form](path)


def gathered(rows: ray.data.Dataset, columns: Columns) -> dict[str, NDArray[Any]]:
    """The moments of rows as a service takes them: named arrays in float64, of the numbers as float32.

    They are those of one pass over all rows, but for the order in which rounded numbers are added.

    Raises:
        Validation: for columns that are not there or hold no finite numbers, and where no row weighs anything.
    """
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]  # from outside: rows stay within the cluster
        total = ray.get(ray.remote(num_cpus=0)(_sum).remote(rows, columns))
    else:
        total = _sum(rows, columns)
    if isinstance(total, str):
        raise Validation(total)
    if total is None or not total.weight:
        raise Validation("there are no rows, or none of them weighs anything")
    return as_arrays(total)


def _sum(rows: ray.data.Dataset, columns: Columns) -> Moments | str | None:
    """The moments of all rows, or the first thing that is wrong with any of them; None where there are none."""
    sums = rows.map_batches(partial(_summed, columns=columns), batch_size=None, batch_format="numpy")
    sums = sums.map_batches(_added, batch_size=TOGETHER, batch_format="numpy")
    return _total(row[SUMS] for row in sums.iter_rows())


def _summed(batch: Batch, columns: Columns) -> dict[str, list[bytes]]:
    """The moments of one block, as bytes, or what is wrong with it: an error here would come with pages of traces."""
    try:
        return {SUMS: [_packed(_moments(batch, columns))] if len(next(iter(batch.values()))) else []}
    except Validation as error:
        return {SUMS: [_packed(error.detail)]}


def _added(batch: Batch) -> dict[str, list[bytes]]:
    """The sum of some blocks' moments."""
    total = _total(batch[SUMS])
    return {SUMS: [] if total is None else [_packed(total)]}


def _packed(told: Moments | str) -> bytes:
    return bytes(pack({"wrong": told}) if isinstance(told, str) else pack({}, as_arrays(told)))


def _total(sums: Iterable[bytes]) -> Moments | str | None:
    """The sum of moments; or the first thing that is wrong with any of them; None for none at all."""
    total: Moments | None = None
    for told, arrays in map(unpack, sums):
        if told:
            return str(told["wrong"])
        more = from_arrays(arrays)
        total = more if total is None else total + more
    return total


def _moments(batch: Batch, columns: Columns) -> Moments:
    """The moments of a block of rows."""
    there = _by_column(batch)
    y = [_named(there, name) for name in columns.y]
    weight = None if columns.weight is None else _named(there, columns.weight)
    others = [name for name in there if name not in y and name != weight]
    x = others if columns.x is None else [_named(there, name) for name in columns.x]
    if not x or not y:
        raise Validation(f"of the columns {cut(', '.join(there), 200)} some must be inputs, and some targets")
    inputs, targets = (np.hstack([_numbers(name, there[name]) for name in names]) for names in (x, y))
    if weight is None:
        return of_rows({"x": inputs, "y": targets})
    weights = _numbers(weight, there[weight])[:, 0]
    if not weights.any():
        return _of_nothing(len(inputs), inputs.shape[1], targets.shape[1])
    if (weights < 0).any():
        raise Validation(f"the weight {weights.min()} is below 0")
    return of_rows({"x": inputs, "y": targets, "weight": weights})


def _of_nothing(rows: int, inputs: int, outputs: int) -> Moments:
    """The moments of rows that weigh nothing."""
    means = np.zeros(inputs), np.zeros(outputs)
    return Moments(rows, 0.0, *means, np.zeros((inputs, inputs)), np.zeros((inputs, outputs)), 0.0)


def _by_column(batch: Batch) -> Batch:
    """The columns by name; the numbers of one that is alone by theirs."""
    if len(batch) > 1:
        return batch
    ((name, column),) = batch.items()
    vectors = _numbers(name, column)
    return {str(place + 1): vectors[:, place] for place in range(vectors.shape[1])}


def _named(there: Batch, given: str) -> str:
    """The name of a column that is given by it, or by its number."""
    names = list(there)
    place = place_of(given, names, len(names))
    if place is None:
        raise Validation(f"there is no column {cut(given, 60)!r}; there are {cut(', '.join(names), 200)}")
    return names[place]


def _numbers(name: str, column: NDArray[Any]) -> NDArray[np.float32]:
    """A column of numbers, or of vectors of them, as (n, width)."""
    if column.dtype == object:  # a vector in each row
        try:
            column = np.stack([np.asarray(each) for each in column])
        except ValueError:
            raise Validation(f"column {name} holds vectors of several lengths") from None
    if column.dtype.kind not in "biuf":
        raise Validation(f"column {name} holds {column.dtype}, and no numbers; name the columns to learn from")
    with np.errstate(over="ignore"):
        numbers = column.reshape(len(column), -1).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise Validation(f"column {name} holds numbers that are missing, or not finite as float32")
    return numbers
