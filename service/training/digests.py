"""Names for training data: the same rows have the same SHA-256, however they came here. Imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.training.sources import Inline, Source, Stored


def digest_of(source: Source) -> str | None:
    """The name of the data that a source describes: of rows that were sent, their digest; of others, that of the words.

    None for rows that were sent to a version that took no digests.
    """
    if isinstance(source, Inline | Stored):
        return source.digest
    words = json.dumps(asdict(source), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(words.encode()).hexdigest()


def digest_of_rows(rows: Mapping[str, NDArray[Any]]) -> str:
    """The SHA-256 of arrays: for each, in the order of the names, its name, dtype and shape, and then its bytes."""
    digest = hashlib.sha256()
    for name, array in sorted(rows.items()):
        digest.update(f"{name}:{array.dtype.str}:{list(array.shape)};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def chained(there: str | None, more: str | None) -> str | None:
    """The name of rows with more rows behind them, by the names of both; None where one has none."""
    return None if there is None or more is None else hashlib.sha256(f"{there}{more}".encode()).hexdigest()
