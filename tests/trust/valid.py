"""A valid request for every route, as bytes, to a service that holds one thing of each kind."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from service.api.openapi import document
from tests.trust.hooks import FILES, ones, tensors
from tests.trust.schema import KEY

ROW = bytes(256)
BINARY = {**FILES, "application/octet-stream": [ROW]}
# What stands before the row in the Open Inference Protocol.
HEAD = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(ROW)}}]}
).encode()
HEADERS = {"Authorization": f"Bearer {KEY}"}


def valid(url: str) -> list[bytes]:
    """The requests, of each route with every example and type of its body."""
    ids = _made(url)
    host = urlsplit(url).netloc
    return [
        _request(method, re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], path), host, media_type, body)
        for path, operations in document()["paths"].items()
        for method, operation in operations.items()
        for media_type, body in _bodies(operation)
    ]


def _made(url: str) -> dict[str, str]:
    """One thing of each kind, by the name under which paths have its id."""
    with httpx.Client(base_url=url, headers=HEADERS, timeout=60) as http:
        sizes = {"in_features": 64, "out_features": 10}
        rows = tensors(x=ones(5, 64), y=ones(5, 10))
        model = http.post("/models", json=sizes).json()
        job = http.post(f"/models/{model['id']}/train", headers={"Prefer": "wait=30"}).json()["id"]
        data = http.post("/datasets", content=rows, headers={"Content-Type": "application/x-safetensors"}).json()["id"]
        sweep = {"model": sizes, "train": {"epochs": 1, "data": {"kind": "teacher"}}, "over": {"rank": [1, 2]}}
        swept = http.post("/sweeps", json=sweep).json()["id"]
    ids = {"model_id": model["id"], "base_id": model["base_id"], "job_id": job, "dataset_id": data, "sweep_id": swept}
    return {**ids, "version": "0", "slug": "validation"}


def _bodies(operation: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        yield "", b""
    for media_type, told in content.items():
        for example in told.get("examples", {}).values():
            yield media_type, json.dumps(example["value"]).encode()
        for body in BINARY.get(media_type, []):
            yield media_type, body


def _request(method: str, path: str, host: str, media_type: str, body: bytes) -> bytes:
    lines = [f"{method.upper()} {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {KEY}", "Connection: close"]
    if path.endswith("/infer") and body == ROW:
        lines.append(f"Inference-Header-Content-Length: {len(HEAD)}")
        body = HEAD + body
    lines += [f"Content-Type: {media_type}", f"Content-Length: {len(body)}"] if media_type else []
    return "\r\n".join([*lines, "", ""]).encode() + body
