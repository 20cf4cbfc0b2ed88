"""Put the OpenAPI page together, in words that generators of clients understand; `python -m` this to print it."""

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service import __version__
from service.api import describe
from service.api.guard import OPEN, READING
from service.api.routes import ROUTERS
from service.errors import CrossOrigin, Forbidden, TooManyRequests, Unauthorized, kinds
from service.schemas import analysis, answers, oip, requests, sweeps, training, versions

TITLE = "lora-service"
SUMMARY = "Low-rank adapters on any linear layer: create, train and run them over HTTP."
LICENCE = {"name": "MIT", "identifier": "MIT"}
SERVERS = [{"url": "/", "description": "where this page is"}]
TAGS = [
    {"name": "models", "description": "LoRA layers: a frozen base and a trainable change of low rank."},
    {"name": "training", "description": "Jobs that train a model in a process of their own."},
    {"name": "bases", "description": "Frozen layers of one's own, shared by any number of models."},
    {"name": "adapters", "description": "To PEFT and back, and merged into plain layers."},
    {"name": "forward", "description": "Run models on tensors, as JSON or binary."},
    {"name": "open inference protocol", "description": "The same for clients of KServe, Triton and MLServer."},
    {"name": "jobs", "description": "Per-epoch losses, live events, cancelling."},
    {"name": "datasets", "description": "Rows to train on, uploaded once."},
    {"name": "sweeps", "description": "Many settings tried at once and compared."},
    {"name": "system", "description": "Health, limits, metrics, and what errors mean."},
]
# Bodies that the routes read and write themselves, which FastAPI does not see; and those whose examples it would cut,
# since it drops every null.
READ: list[type[BaseModel]] = [
    requests.CreateModelRequest,
    requests.UpdateModelRequest,
    requests.TrainRequest,
    requests.RankProfileRequest,
    requests.ForwardRequest,
    requests.MixedForwardRequest,
    oip.InferRequest,
    requests.RollbackRequest,
    sweeps.SweepRequest,
]
WRITTEN: list[type[BaseModel]] = [
    answers.Model,
    answers.ModelPage,
    answers.BasePage,
    answers.ForwardResponse,
    answers.AdapterConfig,
    answers.Health,
    answers.Limits,
    answers.Problem,
    analysis.Analysis,
    training.Job,
    training.JobPage,
    training.EventPage,
    training.Dataset,
    training.DatasetPage,
    training.Sweep,
    training.SweepPage,
    versions.VersionPage,
]
KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "one of LORA_API_KEYS, where there are any; one with the scope read only reads and runs models",
}
# Every operation takes one.
REQUEST_ID: dict[str, Any] = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "an id of the client's own for this request, which the answer has too; one that is no 1 to 128 "
    "characters of ASCII without a space is replaced",
    "schema": {"type": "string", "examples": ["8d9d2f1c5a7e4b60"]},
}
OF_FASTAPI = ("HTTPValidationError", "ValidationError")


def install(app: FastAPI) -> None:
    """Give the app this page as its `/openapi.json`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document()
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def document() -> dict[str, Any]:
    """The page, which is the same whatever the settings."""
    routes = [route for router in ROUTERS for route in router.routes]
    page = get_openapi(
        title=TITLE,
        version=__version__,
        summary=SUMMARY,
        license_info=LICENCE,
        servers=SERVERS,
        tags=TAGS,
        routes=routes,
    )
    page["security"] = [{"key": []}, {}]  # a key, or none where the service asks for none
    page["components"]["securitySchemes"] = {"key": KEY}
    page["components"]["schemas"] = _schemas(page["components"]["schemas"])
    page["components"]["parameters"] = {REQUEST_ID["name"]: REQUEST_ID}
    page["components"]["examples"] = {
        kind.slug(): describe.problem(kind) for kind in sorted(kinds(), key=lambda kind: kind.slug())
    }
    for path, method, operation in _operations(page):
        if not OPEN.fullmatch(path):
            changes = method != "get" and not READING.fullmatch(path)
            refusals = describe.problems(Unauthorized, TooManyRequests, *([Forbidden, CrossOrigin] if changes else []))
            operation["responses"] = {**{str(status): of for status, of in refusals.items()}, **operation["responses"]}
        given = [{**each, "schema": _given(each["schema"])} for each in operation.get("parameters", [])]
        operation["parameters"] = [*given, {"$ref": f"#/components/parameters/{REQUEST_ID['name']}"}]
        _finish(operation["responses"])
    return page


def text() -> str:
    """The page as the file `docs/openapi.json`."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _schemas(seen: dict[str, Any]) -> dict[str, Any]:
    """The schemas that FastAPI has seen and our own, in the order of their names."""
    inputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(schema, "validation") for schema in READ]
    outputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(schema, "serialization") for schema in WRITTEN]
    _, own = models_json_schema([*inputs, *outputs], ref_template=describe.REFERENCE)
    known = {name: schema for name, schema in {**seen, **own["$defs"]}.items() if name not in OF_FASTAPI}
    for schema in known.values():
        for field in schema.get("properties", {}).values():
            field.pop("title", None)  # its name once more, after which generators would call what it holds
            _tell_default(field)
    return dict(sorted(known.items()))


def _tell_default(field: dict[str, Any]) -> None:
    """Say a default in other words: clients send what `default` holds, and beside other fields it may be refused."""
    default = field.pop("default", None)
    if default is not None and not isinstance(default, dict):
        field["x-default"] = default
        said = f"default: {json.dumps(default)}"
        field["description"] = "; ".join(filter(None, [field.get("description"), said]))


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter where it is given: an address or a header has no null."""
    (given, *more) = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    assert not more, "a parameter is of one kind"
    outer = {name: value for name, value in schema.items() if name not in ("anyOf", "title", "description")}
    return {**outer, **{name: value for name, value in given.items() if name not in ("title", "description")}}


def _operations(page: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each operation, with its path and method."""
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _finish(responses: dict[str, Any]) -> None:
    """Add what every answer has."""
    for answer in responses.values():
        answer["headers"] = {**describe.headers("X-Request-Id"), **answer.get("headers", {})}


if __name__ == "__main__":
    print(text(), end="")
