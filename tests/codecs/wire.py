"""Arrays to send, files written and read without the service's own code, and what a decoder may do with any bytes."""

import io
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from service.codecs.by_type import JSON, NPY, SAFETENSORS
from service.codecs.codec import Answer, Codec
from service.errors import ServiceError, Unreadable, Validation

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
ANY_FLOAT32 = st.floats(width=32)
MODEL_ID = "mdl_01M85RD3BCCMDPHHSCEG79B55H"

# Up to 8 dimensions, of which all but the last may be empty.
SHAPES = st.tuples(st.lists(st.integers(0, 3), max_size=7), st.integers(1, 4)).map(lambda s: (*s[0], s[1]))
FULL_SHAPES = array_shapes(min_dims=1, max_dims=8, min_side=1, max_side=3)


def finite_arrays(shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES) -> st.SearchStrategy[NDArray[np.float32]]:
    """Finite float32 arrays of any legal shape."""
    return arrays(np.float32, shapes, elements=FLOAT32)


def any_arrays() -> st.SearchStrategy[NDArray[np.float32]]:
    """Float32 arrays of any legal shape, NaN and infinities among their numbers."""
    return arrays(np.float32, SHAPES, elements=ANY_FLOAT32)


def answer(outputs: NDArray[np.float32], version: int = 0) -> Answer:
    return Answer(outputs, MODEL_ID, version)


def npy_file(array: NDArray[Any], version: tuple[int, int] | None = None) -> bytes:
    """What numpy itself saves."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def npy_header(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    """A npy file with any text for a header."""
    text = header if isinstance(header, bytes) else header.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def npy_described(shape: str, descr: str = "'<f4'", data: bytes = b"", fortran: str = "False") -> bytes:
    """A npy file that claims what it is told to."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"
    return npy_header(header, data, version=1 if len(header) < 65_536 else 2)


def safetensors_raw(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file with any bytes for a header."""
    return struct.pack("<Q", len(header)) + header + data


def safetensors_described(data: bytes = b"", /, **tensors: tuple[str, list[int], list[int]]) -> bytes:
    """A safetensors file that claims what it is told to: (dtype, shape, offsets) by name."""
    header = {name: {"dtype": d, "shape": s, "data_offsets": o} for name, (d, s, o) in tensors.items()}
    return safetensors_raw(json.dumps(header).encode(), data)


def safetensors_file(name: str, array: NDArray[Any], dtype: str = "F32") -> bytes:
    """A file with one tensor, written from the format's own description."""
    data = np.ascontiguousarray(array).tobytes()
    return safetensors_described(data, **{name: (dtype, list(array.shape), [0, len(data)])})


def read_safetensors(body: bytes) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a file, read from the format's own description."""
    (length,) = struct.unpack("<Q", body[:8])
    header, data = json.loads(body[8 : 8 + length]), body[8 + length :]
    header.pop("__metadata__", None)
    assert all(entry["dtype"] == "F32" for entry in header.values())
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }


def written(codec: Codec, x: NDArray[np.float32]) -> bytes:
    """Inputs as a client without this package would write them."""
    if codec is JSON:
        return json.dumps({"inputs": x.tolist()}).encode()
    if codec is NPY:
        return npy_file(x)
    if codec is SAFETENSORS:
        return safetensors_file("inputs", x)
    return x.astype("<f4").tobytes()


def read(codec: Codec, body: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Outputs as a client without this package would read them; bare bytes have no shape of their own."""
    if codec is JSON:
        said = json.loads(body)
        return np.array(said["outputs"], dtype=np.float32).reshape(said["shape"])
    if codec is NPY:
        return np.load(io.BytesIO(body), allow_pickle=False)
    if codec is SAFETENSORS:
        return read_safetensors(body)["outputs"]
    return np.frombuffer(body, "<f4").reshape(shape)


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two float32 arrays are equal bit for bit, every NaN being equal to every other."""
    return a.shape == b.shape and a.dtype == b.dtype == np.float32 and np.array_equal(a, b, equal_nan=True)


def refusal(call: Callable[..., Any], *arguments: Any) -> ServiceError:
    """The error with which the service refuses; fails when it does not, or in any other way."""
    try:
        result = call(*arguments)
    except ServiceError as error:
        must_be_presentable(error)
        return error
    raise AssertionError(f"taken as {result!r}")


def must_be_presentable(error: ServiceError) -> None:
    """A refusal is the reader's fault, says so shortly, and points somewhere into the body."""
    assert isinstance(error, Unreadable | Validation)
    assert 0 < len(error.detail) <= 500
    assert all(len(fault.detail) <= 500 and fault.pointer[:1] in ("", "/") for fault in error.faults)


def decoded_or_refused(codec: Codec, body: bytes | bytearray, in_features: int) -> NDArray[np.float32] | None:
    """What a decoder makes of any bytes: a sound array, or None for a refusal; nothing else ever happens."""
    try:
        x = codec.decode(body, in_features)
    except ServiceError as error:
        must_be_presentable(error)
        return None
    must_be_sound(x, in_features)
    return x


def must_be_sound(x: NDArray[np.float32], in_features: int) -> None:
    """An array as the mathematics needs it."""
    assert type(x) is np.ndarray
    assert x.dtype == np.dtype("<f4")
    assert x.flags.c_contiguous
    assert 1 <= x.ndim <= 8
    assert x.shape[-1] == in_features
    assert np.isfinite(x).all()
