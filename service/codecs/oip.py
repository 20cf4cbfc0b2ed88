"""Tensors of the Open Inference Protocol v2, in JSON or behind it as bytes (its binary tensor data extension)."""

from math import prod
from typing import Any

import numpy as np

from service.codecs.codec import Answer, Array, fault, fits
from service.codecs.json import dumped, dumps, must_be_writable, numbers
from service.errors import Fault, ShapeMismatch, Validation

INPUT, OUTPUT = "inputs", "outputs"
DTYPES = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip

AT = "inputs.0"  # where the one input is, for errors


def from_bytes(body: bytes | bytearray | memoryview, datatype: str, shape: list[int], in_features: int) -> Array:
    """The input whose bytes stand behind the JSON."""
    needed = prod(shape) * np.dtype(DTYPES[datatype]).itemsize
    if needed != len(body):
        detail = f"shape {shape} of {datatype} needs {needed} bytes; {len(body)} follow the JSON"
        raise ShapeMismatch(detail, Fault("/inputs/0/shape", detail))
    return fits(_shaped(np.frombuffer(body, DTYPES[datatype]), shape), in_features, AT)


def from_data(data: Any, shape: list[int], in_features: int) -> Array:
    """The input whose numbers stand in the JSON, flat or nested."""
    name = f"{AT}.data"
    if not isinstance(data, list):
        detail = "inputs.0 has neither data nor the parameter binary_data_size"
        raise Validation(detail, Fault("/inputs/0/data", detail))
    given = numbers(data, name)
    if given.size != prod(shape) or (given.ndim > 1 and list(given.shape) != shape):
        detail = f"{name} has shape {list(given.shape)}; it must be {shape}, or {prod(shape)} numbers in a row"
        raise ShapeMismatch(detail, fault(detail, name))
    return fits(_shaped(given, shape), in_features, AT)


def encode(answer: Answer, request_id: str | None, *, binary: bool) -> tuple[bytes, int | None]:
    """The response, and where it is `binary`, how many of its bytes are JSON."""
    y = answer.outputs
    output: dict[str, Any] = {"name": OUTPUT, "shape": y.shape, "datatype": "FP32"}
    response: dict[str, Any] = {"model_name": answer.model_id, "model_version": str(answer.model_version)}
    if request_id is not None:
        response["id"] = request_id
    if binary:
        output["parameters"] = {"binary_data_size": y.nbytes}
        head = dumps({**response, OUTPUT: [output]})
        return head + y.astype("<f4", copy=False).tobytes(), len(head)
    must_be_writable(y.size, "binary_data")
    flat = y.reshape(-1)
    return dumped(lambda written: {**response, OUTPUT: [{**output, "data": written(flat)}]}), None


def _shaped(array: Any, shape: list[int]) -> Any:
    try:
        return array.reshape(shape)
    except ValueError:  # empty, with longer dimensions than numpy has
        detail = f"no array can have the shape {shape}"
        raise ShapeMismatch(detail, Fault("/inputs/0/shape", detail)) from None
