"""Hugging Face's tensor files: names to arrays, with a header that is checked before any of it is believed."""

from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter

import jiter
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, TensorSpec, deserialize, serialize
from safetensors.numpy import load as load_numpy
from safetensors.numpy import save

from service.bounds import cut
from service.codecs.codec import FLOATS, Answer, Array, Codec, fits
from service.errors import BadSafetensors, Fault, pointer

MAX_HEADER_BYTES = 2**20
QUICK_HEADER_BYTES = 2**12

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
FLOATS_IN_WORDS = "float32, float64, float16 or bfloat16"

Tensors = dict[str, NDArray[np.generic]]


def load(body: bytes | bytearray, names: Collection[str] | None = None, integers: Collection[str] = ()) -> Tensors:
    """The tensors of a file; exactly these names, where some are given. Those named `integers` may hold such.

    Raises:
        BadSafetensors: for a file that the library refuses, other names, or dtypes that are not float.
    """
    header_bytes = int.from_bytes(body[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise _bad(f"the header claims {header_bytes} bytes; at most {MAX_HEADER_BYTES} are read")
    try:
        # The library takes the last of two tensors of one name.
        jiter.from_json(bytes(body[8 : 8 + header_bytes]), catch_duplicate_keys=True)
        tensors = {name: _array(**told) for name, told in sorted(deserialize(bytes(body)), key=itemgetter(0))}  # type: ignore[no-untyped-call]
    except KeyError as dtype:
        raise _bad(f"a tensor is {str(dtype)[:20]}; it must be {FLOATS_IN_WORDS}") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise _bad(f"the file cannot be read: {str(error)[:120]}") from None
    if names is not None and set(tensors) != set(names):
        found = cut(", ".join(sorted(tensors)), 60) or "nothing"
        raise _bad(f"the file holds {found}; it must hold exactly {', '.join(names)}")
    for name, tensor in tensors.items():
        if tensor.dtype.str not in FLOATS and not (name in integers and tensor.dtype.kind in "iu"):
            words = f"{FLOATS_IN_WORDS}, or integers" if name in integers else FLOATS_IN_WORDS
            detail = f"{name} is {tensor.dtype}; it must be {words}"
            raise BadSafetensors(detail, Fault(pointer(name[:60]), detail))
    return tensors


def _array(dtype: str, shape: Sequence[int], data: bytes) -> NDArray[np.generic]:
    """A tensor of a file; bfloat16, which numpy has not, as the same numbers in float32."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)


def read(body: bytes) -> Tensors:
    """The tensors of a file that `dump` made."""
    tensors: Tensors = load_numpy(body)
    return tensors


def dump(
    tensors: Mapping[str, NDArray[np.generic]], note: tuple[str, str] = ("format", "pt"), dtype: str | None = None
) -> bytes:
    """The file of these tensors; the same tensors always give the same bytes.

    Args:
        note: one entry of text beside them, by default what Hugging Face's tools look for.
        dtype: what the tensors are written as, by default what they are; bfloat16 as the nearest to them.
    """
    # No more than one note: the library writes several in no fixed order.
    if dtype != "bfloat16":
        plain = {name: np.ascontiguousarray(tensor, dtype) for name, tensor in tensors.items()}
        return save(plain, dict([note]))
    halves = {name: _bfloat16(tensor) for name, tensor in tensors.items()}
    described = {
        name: TensorSpec(dtype=dtype, shape=half.shape, data_ptr=half.ctypes.data, data_len=half.nbytes)
        for name, half in halves.items()
    }
    return bytes(serialize(described, dict([note])))


def _bfloat16(tensor: NDArray[np.generic]) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to the nearest, and to the even one of two; NaN stays NaN."""
    numbers = np.ascontiguousarray(tensor, "<f4")
    bits = numbers.view("<u4")
    rounded = bits >> 16  # and all that follows in place, since a layer may fill much of the memory
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    rounded[np.isnan(numbers)] = 0x7FC0
    return rounded.astype("<u2")


def _bad(detail: str) -> BadSafetensors:
    return BadSafetensors(detail, Fault("", detail))


def decode(body: bytes | bytearray, in_features: int) -> Array:
    """The tensor `inputs`."""
    return fits(load(body, ["inputs"])["inputs"], in_features)


def encode(answer: Answer) -> bytes:
    """The tensor `outputs`."""
    return dump({"outputs": answer.outputs})


def quick(body: bytes | bytearray, in_features: int) -> Array | None:
    """The same, unless the header is long: whoever reads many names holds up the whole process."""
    return decode(body, in_features) if int.from_bytes(body[:8], "little") <= QUICK_HEADER_BYTES else None


SAFETENSORS = Codec("application/x-safetensors", decode, encode, quick)
