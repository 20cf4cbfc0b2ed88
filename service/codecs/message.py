"""What the server and its workers say to each other: a JSON object and named arrays, in one run of bytes."""

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors.numpy import load

from service.codecs.safetensors import dump

LENGTH_BYTES = 4


def pack(value: dict[str, Any], tensors: dict[str, NDArray[np.generic]] | None = None) -> bytes:
    """A message: the length of the JSON, the JSON, and a safetensors file when there are arrays."""
    text = orjson.dumps(value)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + (dump(tensors) if tensors else b"")


def unpack(message: bytes) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """The object and the arrays of a message that `pack` made."""
    end = LENGTH_BYTES + int.from_bytes(message[:LENGTH_BYTES], "little")
    return orjson.loads(message[LENGTH_BYTES:end]), load(message[end:]) if len(message) > end else {}
