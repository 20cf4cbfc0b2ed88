"""What the OpenAPI page says of bodies that the routes read and write themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.api.problems import MEDIA_TYPE, kinds, status_of
from service.codecs import CODECS
from service.codecs.json import JSON
from service.schemas import (
    CreateModelRequest,
    ForwardRequest,
    Problem,
    TrainRequest,
    UpdateModelRequest,
)

# Schemas of bodies that FastAPI does not see, since the routes read and write them themselves.
SCHEMAS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    (CreateModelRequest, "validation"),
    (UpdateModelRequest, "validation"),
    (TrainRequest, "validation"),
    (ForwardRequest, "validation"),
    (Problem, "serialization"),
]
REFERENCE = "#/components/schemas/{model}"
BINARY = [name for name in CODECS if name != JSON.media_type]

Responses = dict[int | str, dict[str, Any]]


def body(schema: type[BaseModel], examples: dict[str, Any], *, required: bool = True, binary: bool = False) -> Any:
    """The `requestBody` of a route: a schema with examples that run, and the binary types where it reads them."""
    content: dict[str, Any] = {
        JSON.media_type: {
            "schema": {"$ref": REFERENCE.format(model=schema.__name__)},
            "examples": {name: {"summary": name, "value": value} for name, value in examples.items()},
        }
    }
    if binary:
        content |= {name: {"schema": {"type": "string", "format": "binary"}} for name in BINARY}
    return {"requestBody": {"required": required, "content": content}}


def problems(*statuses: int) -> Responses:
    """The error answers of a route."""
    return {
        status: {"description": _titles(status), "content": {MEDIA_TYPE: {"schema": _PROBLEM}}} for status in statuses
    }


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
            schemas = page["components"]["schemas"]
            _, own = models_json_schema(SCHEMAS, ref_template=REFERENCE)
            schemas.update(own["$defs"])
            for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which no route answers with
                schemas.pop(unused, None)
            app.openapi_schema = page
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


_PROBLEM = {"$ref": REFERENCE.format(model=Problem.__name__)}


def _titles(status: int) -> str:
    """The titles of the problems with this status."""
    return "; ".join(dict.fromkeys(kind.title() for kind in kinds() if status_of(kind) == status))
