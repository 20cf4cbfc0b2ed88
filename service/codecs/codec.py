"""What every format of a tensor can do, and the checks that all of them share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import Fault, LimitExceeded, NonFinite, ShapeMismatch, pointer

Array = NDArray[np.float32]

MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**20  # of a tensor in JSON, and rows of one that is empty
MAX_LISTS = 2**16  # lists and objects of one body in JSON: the rows of a tensor
FLOATS = ("<f4", "<f8", "<f2")
FLOATS_IN_WORDS = "little-endian float32, float64 or float16"


class Answer(NamedTuple):
    """The outputs of a forward, and the model and version that made them."""

    outputs: Array
    model_id: str
    model_version: int


@dataclass(frozen=True)
class Codec:
    """One format, both ways.

    `decode(body, in_features)` gives a finite float32 array whose last dimension is in_features; `quick` does so in a
    millisecond for half a MiB, or gives None where it would take longer; `encode(answer)` gives the bytes of an answer.
    """

    media_type: str
    decode: Callable[[bytes | bytearray, int], Array]
    encode: Callable[[Answer], bytes]
    quick: Callable[[bytes | bytearray, int], Array | None]


def fits(x: NDArray[np.generic], in_features: int, name: str = "inputs") -> Array:
    """The array as finite float32 of shape (…, in_features).

    Raises:
        ShapeMismatch, LimitExceeded, NonFinite: with what was expected and what came.
    """
    if x.ndim > MAX_DIMENSIONS:
        detail = f"{name} has {x.ndim} dimensions; it may have at most {MAX_DIMENSIONS}"
        raise LimitExceeded(detail, fault(detail, name), limit=MAX_DIMENSIONS)
    if x.ndim == 0 or x.shape[-1] != in_features:
        detail = f"{name} has shape {list(x.shape)}; its last dimension must be in_features = {in_features}"
        raise ShapeMismatch(detail, fault(detail, name))
    if x.size == 0 and lists(x.shape) > MAX_LISTS:
        # Empty rows take no bytes here, but brackets in JSON.
        detail = f"{name} has shape {list(x.shape)}; an empty tensor may have at most {MAX_LISTS} lists"
        raise LimitExceeded(detail, fault(detail, name), limit=MAX_LISTS)
    return finite(x, name)


def lists(shape: Sequence[int]) -> int:
    """How many lists a tensor of this shape is in JSON: itself, its rows, and whatever is between."""
    return sum(accumulate(shape[:-1], mul, initial=1))


def finite(x: NDArray[np.generic], name: str) -> Array:
    """The array as float32, native and contiguous; NonFinite names the first number that is not finite."""
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(x, dtype=np.float32)
    if array.size and not np.isfinite(array).all():
        index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        detail = f"{place(name, index)} is {x[tuple(index)]}; every number must be finite as float32"
        raise NonFinite(detail, fault(detail, name, index))
    return array


def place(name: str, index: Sequence[int]) -> str:
    """An element as a reader finds it: `data.x[3][1]`."""
    return name + "".join(f"[{i}]" for i in index)


def fault(detail: str, name: str, index: Sequence[int] = ()) -> Fault:
    """A fault at an element of a tensor; the name is a path, such as `data.x`."""
    return Fault(pointer(*name.split("."), *index), detail)
