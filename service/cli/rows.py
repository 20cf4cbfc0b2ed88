"""What a training learns from, as `--data` and `--validation` name it: generated, uploaded, or rows of a file."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.cli.kinds import KINDS, found
from service.cli.reading import Rows, rows
from service.cli.statuses import Refused, tell
from service.client import Client
from service.codecs.codec import finite
from service.schemas.training import Dataset
from service.training.sources import SOURCES

GENERATED = [kind for kind in SOURCES if kind not in ("inline", "dataset")]
# Up to so many numbers go within the request, where they leave nothing behind; more are uploaded.
INLINE_NUMBERS = 20_000
PIECE_BYTES = 2**24
DATASET = KINDS["dat"]


def described(
    client: Client, named: str, loss: str, form: str | None = None, targets: list[str] | None = None
) -> dict[str, Any]:
    """The `data` of a plan: a kind that is generated, a data set by its id, or the rows of a file.

    Raises:
        Refused: for a file that cannot be read, or targets that the loss cannot be of.
    """
    if named in GENERATED:
        return {"kind": named}
    if named.startswith("dat_"):
        return {"kind": "dataset", "id": found(client, named, DATASET)}
    return sent(client, fitting(rows(named, form, targets), loss))


def fitting(given: Rows, loss: str) -> Rows:
    """The rows with targets as the loss takes them: integer classes (n,), or numbers (n, out).

    Raises:
        Refused: where classes are wanted and a target is no whole number.
        NonFinite: with the first number that is not finite.
    """
    y, x = finite(given.y, "y"), finite(given.x, "x")
    if loss != "cross_entropy":
        return Rows(x, y[:, None] if y.ndim == 1 else y, given.weight)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not np.array_equal(y, np.rint(y)):
        raise Refused(f"cross_entropy learns classes, one whole number for each row; these targets are {_shown(y)}")
    return Rows(x, y.astype(np.int64), given.weight)


def sent(client: Client, given: Rows) -> dict[str, Any]:
    """The `data` of a plan for some rows: themselves where they are few, else a data set that is made of them."""
    if given.x.size + given.y.size <= INLINE_NUMBERS:
        named = {name: array for name, array in given._asdict().items() if array is not None}
        return {"kind": "inline", **{name: array.tolist() for name, array in named.items()}}
    dataset = uploaded(client, [given])
    tell(f"{dataset.n_samples} rows are uploaded as {dataset.id}; `lora rm {dataset.id}` when they are of no more use")
    return {"kind": "dataset", "id": dataset.id}


def uploaded(client: Client, given: Iterable[Rows], *, keep_rows: bool = True) -> Dataset:
    """A data set of rows, which are read one after another and sent in parts; without `keep_rows` of their moments.

    Raises:
        Refused: where there are more inputs than targets, or fewer.
    """
    pieces = (piece for each in given for piece in _pieces(each))
    dataset = client.upload_dataset(*next(pieces), keep_rows=keep_rows)
    try:
        for piece in pieces:
            dataset = client.append_rows(dataset, *piece)
    except BaseException:
        tell(f"{dataset.id} has {dataset.n_samples} rows of them; `lora rm {dataset.id}` when they are of no use")
        raise
    return dataset


def _pieces(given: Rows) -> Iterator[Rows]:
    """The rows in parts that a request carries, at least one."""
    if len(given.x) != len(given.y):
        raise Refused(f"x has {len(given.x)} rows and y {len(given.y)}; each row of inputs has its target")
    numbers = given.x[:1].size + given.y[:1].size + 1
    step = max(1, PIECE_BYTES // (8 * numbers))
    for start in range(0, max(1, len(given.x)), step):
        part = slice(start, start + step)
        yield Rows(given.x[part], given.y[part], None if given.weight is None else given.weight[part])


def _shown(y: NDArray[Any]) -> str:
    return f"{y.dtype} of shape {list(y.shape)}"
