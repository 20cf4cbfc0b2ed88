"""A frozen layer in a file of safetensors: `weight` (out, in) and perhaps `bias` (out,)."""

from typing import Literal, NamedTuple

import jiter

from service.bounds import cut
from service.codecs.codec import Array, finite
from service.codecs.safetensors import dump, load
from service.errors import BadSafetensors, Fault, LimitExceeded, ShapeMismatch, pointer
from service.lora.spec import MAX_FEATURES

DType = Literal["float32", "float16", "bfloat16"]
KEPT: dict[str, DType] = {"F16": "float16", "BF16": "bfloat16"}


class Layer(NamedTuple):
    """The tensors in float32, and the dtype in which the file has them; several dtypes count as float32."""

    weight: Array
    bias: Array | None
    dtype: DType


def loaded(body: bytes | bytearray) -> Layer:
    """The layer in a file.

    Raises:
        BadSafetensors: for a file that the library refuses, or other tensors.
        ShapeMismatch, LimitExceeded, NonFinite
    """
    tensors = load(body)
    if not {"weight"} <= set(tensors) <= {"weight", "bias"}:
        found = cut(", ".join(sorted(tensors)), 60) or "nothing"
        detail = f"the file holds {found}; it must hold weight, and may hold bias"
        raise BadSafetensors(detail, Fault("", detail))
    weight = tensors["weight"]
    if weight.ndim != 2 or not weight.size:
        raise _shape("weight", weight.shape, "[out_features, in_features], with at least one of each")
    for features, name in zip(weight.shape, ("out_features", "in_features"), strict=True):
        if features > MAX_FEATURES:
            detail = f"{name} is {features}; it is at most {MAX_FEATURES}"
            raise LimitExceeded(detail, Fault("/weight", detail), limit=MAX_FEATURES)
    bias = tensors.get("bias")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise _shape("bias", bias.shape, f"[{len(weight)}], one number for each row of weight")
    header = jiter.from_json(bytes(body[8 : 8 + int.from_bytes(body[:8], "little")]))
    dtypes = {header[name]["dtype"] for name in tensors}
    dtype: DType = KEPT.get(dtypes.pop(), "float32") if len(dtypes) == 1 else "float32"
    return Layer(finite(weight, "weight"), None if bias is None else finite(bias, "bias"), dtype)


def dumped(layer: Layer) -> bytes:
    """The file of a layer, in its dtype."""
    tensors = {"weight": layer.weight, "bias": layer.bias}
    return dump({name: tensor for name, tensor in tensors.items() if tensor is not None}, dtype=layer.dtype)


def _shape(name: str, shape: tuple[int, ...], expected: str) -> ShapeMismatch:
    detail = f"{name} has shape {list(shape)}; it must be {expected}"
    return ShapeMismatch(detail, Fault(pointer(name), detail))
