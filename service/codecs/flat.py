"""Read the usual forward body, `{"inputs": [[…], …]}`, without a Python object for each number."""

import threading
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from service.codecs.codec import MAX_ELEMENTS

SHORT_BYTES = 4_096
KEPT_BYTES = 2**20  # parsers that have read more are not kept: they hold several times the body's size

_kept = threading.local()


def inputs(body: bytes | bytearray) -> NDArray[np.float64] | None:
    """The numbers of one row, or of rows that are equally long.

    None for everything else, legal or not: the strict reader of `service.codecs.json` judges it, and says what is
    wrong. What is given here that reader reads as well, to the same numbers.
    """
    if not body.startswith(b"{"):  # simdjson would pass over a byte order mark
        return None
    if len(body) >= 2 * MAX_ELEMENTS and _count(body, b",") >= MAX_ELEMENTS:  # fewer bytes hold fewer numbers
        return None
    parser = getattr(_kept, "parser", None) or simdjson.Parser()
    _kept.parser = None  # whatever fails below may go on holding on to it
    try:
        document: Any = parser.parse(body)
        rows = document["inputs"]
        flat = np.frombuffer(rows.as_buffer(of_type="d"), dtype=np.float64)  # numbers alone, whatever their nesting
        shape = _shape(rows, _count(body, b"["))
        if len(document) != 1 or not flat.size or shape is None:
            return None
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        return None
    del document, rows  # a parser reads nothing new while they live
    if len(body) <= KEPT_BYTES:
        _kept.parser = parser
    return flat.reshape(shape)


def _shape(rows: Any, lists: int) -> tuple[int, ...] | None:
    """The shape of a list of numbers, or of equally long lists of them, of so many lists in all; None for others."""
    if lists == 1:
        return (len(rows),)
    if lists != 1 + len(rows):
        return None
    lengths = set(map(len, rows))  # TypeError where a number stands between lists
    return (len(rows), lengths.pop()) if len(lengths) == 1 else None


def _count(body: bytes | bytearray, character: bytes) -> int:
    """How often a character stands in the text: of a long one, numpy counts six times faster than bytes do."""
    if len(body) < SHORT_BYTES:
        return body.count(character)
    return int(np.count_nonzero(np.frombuffer(body, dtype=np.uint8) == ord(character)))
