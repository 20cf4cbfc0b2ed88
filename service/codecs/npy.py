"""NumPy's own file format. Its header is a Python literal, which is matched here and never evaluated."""

import io
import re
import struct
from math import prod

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.codecs.codec import FLOATS, FLOATS_IN_WORDS, Answer, Array, Codec, fits
from service.errors import BadNpy, Fault, ShapeMismatch

LENGTHS = {b"\x01\x00": "<H", b"\x02\x00": "<I"}  # by version, how the header's length is written
MAX_HEADER_BYTES = 10_000  # as in numpy
HEADER = re.compile(
    r"\{\s*(?:(?:"
    r"'descr':\s*'(?P<descr>[^']{1,20})'|"
    r"'fortran_order':\s*(?P<fortran>True|False)|"
    r"'shape':\s*\((?P<shape>|(?:\d+,\s*)+\d*)\)"
    r"),?\s*){3}\}\s*"
)


def load(body: bytes | bytearray) -> NDArray[np.generic]:
    """The array in a npy file.

    Raises:
        BadNpy: for a broken header or a dtype that is not little-endian float.
        ShapeMismatch: when the bytes after the header are not what the shape needs.
    """
    header, start = _header(body)
    match = HEADER.fullmatch(header)
    if match is None or None in match.groups():
        raise _bad("the npy header must give 'descr', 'fortran_order' and 'shape', as numpy.save writes them")
    descr, fortran, lengths = match.groups()
    if descr not in FLOATS:
        raise _bad(f"the npy dtype is {descr}; it must be {FLOATS_IN_WORDS}")
    try:
        shape = tuple(int(length) for length in lengths.split(",") if length.strip())
    except ValueError:  # more digits than Python reads
        raise _bad(f"the npy shape is ({lengths[:60]}…), which no array can have") from None
    dtype = np.dtype(descr)
    needed, got = prod(shape) * dtype.itemsize, len(body) - start
    if needed != got:
        much = f"{needed} bytes" if needed < 10**150 else "beyond any number of bytes"
        detail = f"the shape ({lengths[:60]}) needs {much} of {descr}; {got} follow the header"
        raise ShapeMismatch(detail, Fault("", detail))
    try:
        return np.frombuffer(body, dtype, offset=start).reshape(shape, order="F" if fortran == "True" else "C")
    except ValueError:  # empty, with more dimensions or longer ones than numpy has
        raise _bad(f"the npy shape is ({lengths[:60]}), which no array can have") from None


def _header(body: bytes | bytearray) -> tuple[str, int]:
    """The header's text, and where the data begins."""
    length_format = LENGTHS.get(bytes(body[6:8]))
    if not body.startswith(npy.MAGIC_PREFIX) or length_format is None:
        raise _bad("the body does not begin like a npy file of version 1.0 or 2.0")
    begin = 8 + struct.calcsize(length_format)
    if len(body) < begin:
        raise _bad("the npy file ends before its header")
    (length,) = struct.unpack(length_format, body[8:begin])
    if length > MAX_HEADER_BYTES or begin + length > len(body):
        raise _bad(f"the npy header claims {length} bytes; the file has {len(body)}, and {MAX_HEADER_BYTES} are read")
    return body[begin : begin + length].decode("latin-1"), begin + length


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


NPY = Codec("application/x-npy", decode, encode, quick=decode)
