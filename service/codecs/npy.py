"""NumPy's own file format, read from its header on: nothing in it is ever unpickled or evaluated into objects."""

import io
from math import prod

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.codecs.codec import FLOATS, FLOATS_IN_WORDS, Answer, Array, Codec, fits
from service.errors import BadNpy, Fault, ShapeMismatch

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def load(body: bytes | bytearray) -> NDArray[np.generic]:
    """The array in a npy file.

    Raises:
        BadNpy: for a broken header or a dtype that is not little-endian float.
        ShapeMismatch: when the bytes after the header are not what the shape needs.
    """
    stream = io.BytesIO(body)
    try:
        version = npy.read_magic(stream)
        shape, fortran, dtype = HEADERS[version](stream)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, SyntaxError) as error:
        raise _bad(f"the npy header cannot be read: {str(error)[:120]}") from None
    if dtype.str not in FLOATS:
        raise _bad(f"the npy dtype is {dtype.str[:20]}; it must be {FLOATS_IN_WORDS}")
    if any(length < 0 for length in shape):
        raise _bad(f"the npy shape is {str(shape)[:60]}; no dimension is below 0")
    needed, got = prod(shape) * dtype.itemsize, len(body) - stream.tell()
    if needed != got:
        detail = f"the shape {str(shape)[:60]} needs {needed} bytes of {dtype.str}; {got} follow the header"
        raise ShapeMismatch(detail, Fault("", detail))
    flat = np.frombuffer(body, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def dump(array: NDArray[np.generic]) -> bytes:
    """The npy file of an array."""
    stream = io.BytesIO()
    npy.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _bad(detail: str) -> BadNpy:
    return BadNpy(detail, Fault("", detail))


def decode(body: bytes | bytearray, in_features: int) -> Array:
    """The array in the file, as inputs."""
    return fits(load(body), in_features)


def encode(answer: Answer) -> bytes:
    """The outputs as a npy file."""
    return dump(answer.outputs)


NPY = Codec("application/x-npy", decode, encode)
