"""What the OpenAPI page says of bodies that the routes read and write themselves."""

from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import BaseModel

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
from service.schemas.answers import Problem

REFERENCE = "#/components/schemas/{model}"
EXAMPLE = "#/components/examples/{slug}"
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
    "WWW-Authenticate": ("string", "Bearer: a key is needed (RFC 6750)"),
    "Inference-Header-Content-Length": ("integer", "how much of it is JSON; absent where all of it is"),
}
CONDITIONS = {
    "If-Match": "the ETag of the state that is to be changed; of another state this is a 412 (RFC 9110)",
    "If-None-Match": "the ETag of what the client has; where it is still so this is a 304 (RFC 9110)",
}
OF_ERRORS = {401: ["WWW-Authenticate"], 415: ["Accept"], 429: ["Retry-After"], 503: ["Retry-After"]}

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


def condition(name: str) -> dict[str, Any]:
    """The `parameters` of a route that looks at a header which names an ETag."""
    return {
        "parameters": [
            {"name": name, "in": "header", "description": CONDITIONS[name], "schema": {"type": "string"}},
        ]
    }


def problems(*kinds: type[ServiceError]) -> Responses:
    """The error answers of a route, by status: those named, and those that no route is safe from."""
    kinds = tuple(dict.fromkeys((*kinds, Validation, InternalError)))  # any may be given a parameter that it lacks
    return {
        status: {
            "description": "; ".join(kind.title() for kind in of_status),
            "headers": headers(*OF_ERRORS.get(status, [])),
            "content": {
                MEDIA_TYPE: {
                    "schema": reference(Problem),
                    "examples": {kind.slug(): {"$ref": EXAMPLE.format(slug=kind.slug())} for kind in of_status},
                }
            },
        }
        for status in sorted({status_of(kind) for kind in kinds})
        for of_status in [[kind for kind in kinds if status_of(kind) == status]]
    }


def problem(kind: type[ServiceError]) -> dict[str, Any]:
    """An error as an example."""
    body = body_of(kind(kind.title()), instance="/models", request_id="8d9d2f1c5a7e4b60")
    return {"summary": kind.title(), "value": orjson.loads(body)}


def binary(description: str, *media_types: str) -> dict[str, Any]:
    """An answer that is bytes."""
    return {
        "description": description,
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in media_types},
    }


def upload(description: str, media_type: str) -> dict[str, Any]:
    """A request whose body is a file."""
    return {"requestBody": {"required": True, **binary(description, media_type)}}
