"""What the server and its workers say to each other: a JSON object and named arrays, in one run of bytes."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

LENGTH_BYTES = 8
ALIGNED_BYTES = 64  # every array begins at a multiple of this, as fast loops like it
DTYPE = re.compile("[<|][biuf][1248]")  # numpy would parse other texts as a language of their own

Arrays = dict[str, NDArray[Any]]


def pack(value: dict[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> memoryview:
    """A message: the length of the JSON, the JSON (the object, and each array's name, dtype and shape), the arrays.

    Arrays are copied once, by numpy, which lets other threads go on meanwhile.
    """
    arrays = arrays or {}
    text = orjson.dumps([value, [(name, array.dtype.str, array.shape) for name, array in arrays.items()]])
    end = _aligned(LENGTH_BYTES + len(text))
    message = np.zeros(end + sum(_aligned(array.nbytes) for array in arrays.values()), dtype=np.uint8)
    message[:LENGTH_BYTES] = np.frombuffer(len(text).to_bytes(LENGTH_BYTES, "little"), dtype=np.uint8)
    message[LENGTH_BYTES : LENGTH_BYTES + len(text)] = np.frombuffer(text, dtype=np.uint8)
    for array in arrays.values():
        message[end : end + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        end += _aligned(array.nbytes)
    return message.data


def unpack(message: bytes | memoryview) -> tuple[dict[str, Any], Arrays]:
    """The object and the arrays of a message that `pack` made; the arrays may be written to.

    Raises:
        ValueError, TypeError: for bytes that are no message.
    """
    end = LENGTH_BYTES + int.from_bytes(message[:LENGTH_BYTES], "little")
    value, described = orjson.loads(message[LENGTH_BYTES:end])
    if not described:
        return value, {}
    memory, arrays = np.array(np.frombuffer(message, dtype=np.uint8)), {}
    end = _aligned(end)
    for name, dtype, shape in described:
        if not DTYPE.fullmatch(dtype):
            raise ValueError(f"a message carries no arrays of dtype {dtype[:20]!r}")
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        arrays[name] = memory[end : end + size].view(dtype).reshape(shape)
        end += _aligned(size)
    return value, arrays


def _aligned(size: int) -> int:
    return -(-size // ALIGNED_BYTES) * ALIGNED_BYTES
