"""What the OpenAPI page says of bodies that the routes read and write themselves."""

from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.api.problems import MEDIA_TYPE, body_of, status_of
from service.codecs import CODECS
from service.codecs.json import JSON
from service.errors import (
    DuplicateKey,
    LimitExceeded,
    MalformedJson,
    NonFinite,
    ServiceError,
    TooDeep,
    TooLarge,
    UnsupportedEncoding,
    UnsupportedMediaType,
    Validation,
)
from service.schemas.answers import EventPage, Job, Model, Problem
from service.schemas.requests import CreateModelRequest, ForwardRequest, TrainRequest, UpdateModelRequest

# Schemas of bodies that the routes read and write themselves, which FastAPI does not see; and of those whose
# examples it would cut, since it drops every null.
SCHEMAS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    (CreateModelRequest, "validation"),
    (UpdateModelRequest, "validation"),
    (TrainRequest, "validation"),
    (ForwardRequest, "validation"),
    (Model, "serialization"),
    (Job, "serialization"),
    (EventPage, "serialization"),
    (Problem, "serialization"),
]
REFERENCE = "#/components/schemas/{model}"
BINARY = [name for name in CODECS if name != JSON.media_type]

# What can be wrong with any body, and with one in JSON.
BODY = (TooLarge, UnsupportedMediaType, UnsupportedEncoding)
JSON_BODY = (*BODY, MalformedJson, TooDeep, Validation, DuplicateKey, LimitExceeded, NonFinite)

Responses = dict[int | str, dict[str, Any]]


def body(schema: type[BaseModel], examples: dict[str, Any], *, required: bool = True, binary: bool = False) -> Any:
    """The `requestBody` of a route: a schema with examples that run, and the binary types where it reads them."""
    content: dict[str, Any] = {
        JSON.media_type: {
            "schema": reference(schema),
            "examples": {name: {"summary": name, "value": value} for name, value in examples.items()},
        }
    }
    if binary:
        content |= {name: {"schema": {"type": "string", "format": "binary"}} for name in BINARY}
    return {"requestBody": {"required": required, "content": content}}


def reference(schema: type[BaseModel]) -> dict[str, str]:
    """The place of a schema on the page."""
    return {"$ref": REFERENCE.format(model=schema.__name__)}


def problems(*kinds: type[ServiceError]) -> Responses:
    """The error answers of a route: those named, by status, with an example of each."""
    return {
        status: {
            "description": "; ".join(kind.title() for kind in of_status),
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
            _forget_framework_errors(page)
            app.openapi_schema = page
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _forget_framework_errors(page: dict[str, Any]) -> None:
    """Take out the 422 that FastAPI adds wherever there is a parameter, and that no route answers with."""
    for name in ("HTTPValidationError", "ValidationError"):
        page["components"]["schemas"].pop(name, None)
    for path in page["paths"].values():
        for operation in path.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
