"""Requests to the model that the sheet is tried on, with whatever they are given."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.codecs.wire import safetensors_described
from tests.trust.asking import JSON, Ask

NPY, RAW = {"Content-Type": "application/x-npy"}, {"Content-Type": "application/octet-stream"}
FILE = {"Content-Type": "application/x-safetensors"}


def text(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def create(body: Any, **headers: str | None) -> Ask:
    return Ask("POST", "/models", text(body), JSON | _named(headers))


def train(body: Any, **headers: str | None) -> Ask:
    return Ask("POST", "/models/{model}/train", text(body), JSON | _named(headers))


def forward(body: Any, headers: Mapping[str, str | None] = JSON) -> Ask:
    return Ask("POST", "/models/{model}/forward", text(body), headers)


def infer(shape: list[int], data: list[float]) -> Ask:
    tensor = {"name": "x", "shape": shape, "datatype": "FP32", "data": data}
    return Ask("POST", "/v2/models/{model}/infer", text({"inputs": [tensor]}))


def adopt(file: bytes, **headers: str | None) -> Ask:
    return Ask("PUT", "/models/{model}/adapter", file, FILE | _named(headers))


def get(path: str, **headers: str | None) -> Ask:
    return Ask("GET", path, headers=_named(headers))


def _named(headers: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def adapter(a: Any = (1, 3), b: Any = (2, 1), dtype: str = "<f4", **more: tuple[str, list[int], list[int]]) -> bytes:
    """The file of an adapter of the tests' model, or of one that differs as told."""
    sent = {"<f4": "F32", "<i4": "I32"}[dtype]
    first, second = np.ones(a, dtype).tobytes(), np.ones(b, dtype).tobytes()
    ends = len(first), len(first) + len(second)
    told = {"lora_A.weight": (sent, [*a], [0, ends[0]]), "lora_B.weight": (sent, [*b], [*ends])}
    return safetensors_described(first + second, **told, **more)
