"""What schemathesis is told beyond the OpenAPI page: what is in files and events, and which routes ask for a key."""

from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st

from tests.codecs.wire import npy_file, safetensors_described

EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {"event": {"enum": ["state", "epoch", "done", "shutdown"]}, "data": {"type": "string"}},
}

# What the server answers before any route is known, so no route tells of it.
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
BEFORE_ROUTES = {status: {"description": "too long", "content": PROBLEM} for status in ("414", "431")}


def tensors(**arrays: np.ndarray[Any, Any]) -> bytes:
    """A safetensors file of float32 arrays."""
    described, data = {}, b""
    for name, array in arrays.items():
        described[name] = ("F32", list(array.shape), [len(data), len(data) + array.nbytes])
        data += array.astype("<f4").tobytes()
    return safetensors_described(data, **described)


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


FILES = {
    "application/x-safetensors": [
        tensors(weight=ones(3, 4), bias=ones(3)),
        tensors(weight=ones(10, 64)),
        tensors(x=ones(5, 64), y=ones(5, 10)),
        tensors(inputs=ones(2, 64)),
        tensors(**{"lora_A.weight": ones(4, 64), "lora_B.weight": ones(10, 4)}),
    ],
    "application/x-npy": [npy_file(ones(64)), npy_file(ones(2, 64))],
}
for _name, _files in FILES.items():
    schemathesis.openapi.media_type(_name, st.sampled_from(_files) | st.binary(max_size=200))


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Tell what OpenAPI 3.1 has no word for: that this service asks for a key, and what a stream is made of."""
    raw_schema["security"] = [{"key": []}]
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            if "401" not in operation["responses"]:
                operation["security"] = []
            operation["responses"] |= BEFORE_ROUTES
            for answer in operation["responses"].values():
                if "text/event-stream" in answer.get("content", {}):
                    answer["content"]["text/event-stream"] = {"itemSchema": EVENT}
