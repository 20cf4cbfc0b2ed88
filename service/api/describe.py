"""What the OpenAPI page says of bodies that the routes read and write themselves."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.api.problems import MEDIA_TYPE, body_of, status_of
from service.codecs.by_type import CODECS
from service.codecs.json import JSON
from service.errors import (
    BadIdempotencyKey,
    DuplicateKey,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InsufficientStorage,
    InternalError,
    LimitExceeded,
    MalformedJson,
    NonFinite,
    ServiceError,
    StorageUnavailable,
    TooDeep,
    TooLarge,
    UnsupportedEncoding,
    UnsupportedMediaType,
    Validation,
)
from service.schemas.analysis import Analysis
from service.schemas.answers import ForwardResponse, Limits, Model, ModelPage, Problem
from service.schemas.oip import InferRequest
from service.schemas.requests import (
    CreateModelRequest,
    ForwardRequest,
    MixedForwardRequest,
    RankProfileRequest,
    RollbackRequest,
    TrainRequest,
    UpdateModelRequest,
)
from service.schemas.sweeps import SweepRequest
from service.schemas.training import Dataset, DatasetPage, EventPage, Job, JobPage, Sweep, SweepPage
from service.schemas.versions import VersionPage

# Schemas of bodies that the routes read and write themselves, which FastAPI does not see; and of those whose
# examples it would cut, since it drops every null.
SCHEMAS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    (CreateModelRequest, "validation"),
    (UpdateModelRequest, "validation"),
    (TrainRequest, "validation"),
    (RankProfileRequest, "validation"),
    (ForwardRequest, "validation"),
    (MixedForwardRequest, "validation"),
    (InferRequest, "validation"),
    (Model, "serialization"),
    (RollbackRequest, "validation"),
    (VersionPage, "serialization"),
    (SweepRequest, "validation"),
    (Sweep, "serialization"),
    (SweepPage, "serialization"),
    (Dataset, "serialization"),
    (DatasetPage, "serialization"),
    (ModelPage, "serialization"),
    (Analysis, "serialization"),
    (Job, "serialization"),
    (JobPage, "serialization"),
    (EventPage, "serialization"),
    (ForwardResponse, "serialization"),
    (Limits, "serialization"),
    (Problem, "serialization"),
]
REFERENCE = "#/components/schemas/{model}"
BINARY = [name for name in CODECS if name != JSON.media_type]

# What can be wrong with any body, and with one in JSON.
BODY = (TooLarge, UnsupportedMediaType, UnsupportedEncoding)
JSON_BODY = (*BODY, MalformedJson, TooDeep, Validation, DuplicateKey, LimitExceeded, NonFinite)
# What may be wrong with the disk when something is to be stored.
STORED = (StorageUnavailable, InsufficientStorage)
# What may be wrong with an Idempotency-Key.
ONCE = (BadIdempotencyKey, IdempotencyMismatch, IdempotencyInFlight)

HEADERS = {
    "X-Request-Id": ("string", "the id of the request: the client's own where it sent a plain one"),
    "ETag": ("string", "names this state of the thing, for If-Match and If-None-Match (RFC 9110)"),
    "Location": ("string", "where the new thing is"),
    "Link": ("string", 'the next page, rel="next" (RFC 8288); absent on the last'),
    "Retry-After": ("integer", "seconds to wait before asking again"),
    "Preference-Applied": ("string", "the wait that was granted (RFC 7240); absent where none was asked for"),
    "X-Model-Version": ("integer", "the version of the model that answered"),
    "Accept": ("string", "the types that are read here"),
}
OF_ERRORS = {415: ["Accept"], 503: ["Retry-After"]}

Responses = dict[int | str, dict[str, Any]]


def body(
    schema: type[BaseModel], examples: dict[str, Any], *, required: bool = True, binary: Iterable[str] = ()
) -> Any:
    """The `requestBody` of a route: a schema with examples that run, and the binary types where it reads them."""
    content: dict[str, Any] = {
        JSON.media_type: {
            "schema": reference(schema),
            "examples": {name: {"summary": name, "value": value} for name, value in examples.items()},
        }
    }
    content |= {name: {"schema": {"type": "string", "format": "binary"}} for name in binary}
    return {"requestBody": {"required": required, "content": content}}


def reference(schema: type[BaseModel]) -> dict[str, str]:
    """The place of a schema on the page."""
    return {"$ref": REFERENCE.format(model=schema.__name__)}


def headers(*names: str) -> dict[str, Any]:
    """The `headers` of an answer."""
    return {
        name: {"description": description, "schema": {"type": kind}}
        for name, (kind, description) in HEADERS.items()
        if name in names
    }


def problems(*kinds: type[ServiceError]) -> Responses:
    """The error answers of a route, by status: those named, and the one that no route is safe from."""
    kinds = (*kinds, InternalError)
    return {
        status: {
            "description": "; ".join(kind.title() for kind in of_status),
            "headers": headers(*OF_ERRORS.get(status, [])),
            "content": {
                MEDIA_TYPE: {
                    "schema": reference(Problem),
                    "examples": {kind.slug(): {"summary": kind.title(), "value": _example(kind)} for kind in of_status},
                }
            },
        }
        for status in sorted({status_of(kind) for kind in kinds})
        for of_status in [[kind for kind in kinds if status_of(kind) == status]]
    }


def _example(kind: type[ServiceError]) -> Any:
    return orjson.loads(body_of(kind(kind.title()), instance="/models", request_id="8d9d2f1c5a7e4b60"))


def binary(description: str, *media_types: str) -> dict[str, Any]:
    """An answer that is bytes."""
    return {
        "description": description,
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in media_types},
    }


def upload(description: str, media_type: str) -> dict[str, Any]:
    """A request whose body is a file."""
    return {"requestBody": {"required": True, **binary(description, media_type)}}


def install(app: FastAPI) -> None:
    """Give the app an `/openapi.json` that knows the bodies its routes read themselves."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            _, own = models_json_schema(SCHEMAS, ref_template=REFERENCE)
            page["components"]["schemas"] |= own["$defs"]
            for name in ("HTTPValidationError", "ValidationError"):
                page["components"]["schemas"].pop(name, None)
            for operation in _operations(page):
                _finish(operation["responses"])
            app.openapi_schema = page
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in page["paths"].values():
        yield from path.values()


def _finish(responses: dict[str, Any]) -> None:
    """Add what every answer has; take out the 422 that FastAPI adds to each parameter, which no route answers with."""
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]
    for answer in responses.values():
        answer["headers"] = {**headers("X-Request-Id"), **answer.get("headers", {})}
