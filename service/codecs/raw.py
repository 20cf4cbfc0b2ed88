"""Bare float32 bytes: little-endian, row-major, the last dimension known from the model."""

import numpy as np

from service.codecs.codec import Answer, Array, Codec, fits
from service.errors import Fault, ShapeMismatch


def decode(body: bytes | bytearray, in_features: int) -> Array:
    """Rows (n, in_features); ShapeMismatch unless the bytes are whole rows."""
    row_bytes = 4 * in_features
    if len(body) % row_bytes:
        detail = f"the body has {len(body)} bytes; a row of {in_features} float32 has {row_bytes}"
        raise ShapeMismatch(detail, Fault("", detail))
    return fits(np.frombuffer(body, dtype="<f4").reshape(-1, in_features), in_features)


def encode(answer: Answer) -> bytes:
    """The outputs' bytes."""
    return answer.outputs.astype("<f4", copy=False).tobytes()


RAW = Codec("application/octet-stream", decode, encode, quick=decode)
