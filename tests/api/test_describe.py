"""The OpenAPI page: a stranger's client can rely on it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from service.api.routes import ROUTERS
from service.engine import Engine
from service.ids import BASE_ID, JOB_ID, MODEL_ID
from service.schemas.fields import A_MODEL_ID
from service.schemas.requests import TrainRequest
from service.training.plan import Plan

FREE_OF_ERRORS = {"/livez", "/readyz", "/limits", "/metrics"}


@pytest.fixture(scope="module")
def page(service: Any) -> dict[str, Any]:
    """`/openapi.json` as it is served."""
    body: dict[str, Any] = service.http.get("/openapi.json").json()
    return body


def operations(page: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in page["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def resolved(page: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as one that a validator can follow: its references point into the page."""
    return {**schema, "components": page["components"]}


def test_the_page_is_openapi_3_1_and_every_reference_leads_somewhere(page: dict[str, Any]) -> None:
    assert page["openapi"].startswith("3.1")

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(page):
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in page["components"][kind]
    assert "HTTPValidationError" not in page["components"]["schemas"]


def test_every_operation_has_a_name_a_summary_and_a_text(page: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(page)]
    assert len(set(ids)) == len(ids)
    for _, _, operation in operations(page):
        assert operation["operationId"].replace("_", "").isalpha()
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]


def test_every_route_is_on_the_page(page: dict[str, Any]) -> None:
    routes = {(method, route.path) for router in ROUTERS for route in router.routes for method in route.methods}
    assert routes - {(method, path) for method, path, _ in operations(page)} == {
        ("GET", "/"),
        ("GET", "/favicon.ico"),
        ("GET", "/static/{name:path}"),
    }


def test_every_operation_that_can_fail_says_how_with_an_example(page: dict[str, Any]) -> None:
    problem = resolved(page, {"$ref": "#/components/schemas/Problem"})
    for _, path, operation in operations(page):
        failures = {status: body for status, body in operation["responses"].items() if status >= "4"}
        assert failures or path in FREE_OF_ERRORS
        for status, body in failures.items():
            assert body["description"]
            if path == "/readyz":
                continue
            examples = body["content"]["application/problem+json"]["examples"]
            for name in examples:
                example = page["components"]["examples"][name]
                Draft202012Validator(problem).validate(example["value"])
                assert example["value"]["status"] == int(status)


def test_examples_of_bodies_fit_their_schemas_and_run(page: dict[str, Any], http: httpx.Client) -> None:
    model = http.post("/models", json={"in_features": 64, "out_features": 10}).json()
    ran = 0
    for method, path, operation in operations(page):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        for example in (content or {"examples": {}})["examples"].values():
            Draft202012Validator(resolved(page, content["schema"])).validate(example["value"])
            value = json.loads(json.dumps(example["value"]).replace(A_MODEL_ID, model["id"]))
            version = http.get(f"/models/{model['id']}").json()["version"]
            address = path.replace("{model_id}", model["id"]).replace("{version}", str(version))
            answer = http.request(method, address, json=value)
            assert answer.status_code < 300, answer.text
            ran += 1
    assert ran >= 8


def test_answers_fit_the_schemas_that_describe_them(page: dict[str, Any], http: httpx.Client) -> None:
    model = http.post("/models", json={"in_features": 64, "out_features": 10, "name": "fits"}).json()
    job = http.post(f"/models/{model['id']}/train", headers={"Prefer": "wait=30"}).json()
    answers = {
        "Model": model,
        "Job": job,
        "ModelPage": http.get("/models").json(),
        "JobPage": http.get("/jobs").json(),
        "ForwardResponse": http.post(f"/models/{model['id']}/forward", json={"inputs": [0] * 64}).json(),
        "Limits": http.get("/limits").json(),
        "Problem": http.get("/nothing").json(),
    }
    for name, answer in answers.items():
        Draft202012Validator(resolved(page, {"$ref": f"#/components/schemas/{name}"})).validate(answer)
        examples = page["components"]["schemas"][name].get("examples", [])
        for example in examples:
            Draft202012Validator(resolved(page, {"$ref": f"#/components/schemas/{name}"})).validate(example)


def test_ids_limits_and_choices_are_in_the_schemas(page: dict[str, Any]) -> None:
    known = page["components"]["schemas"]
    assert known["Model"]["properties"]["id"]["pattern"] == MODEL_ID
    assert known["Layer"]["properties"]["base_id"]["pattern"] == BASE_ID
    assert known["Job"]["properties"]["id"]["pattern"] == JOB_ID
    create = known["CreateModelRequest"]["properties"]
    assert create["rank"]["anyOf"][0]["maximum"] == 1_024
    assert known["Init"]["enum"] == ["kaiming", "normal", "gaussian", "orthogonal", "pissa", "olora"]
    assert create["init"]["$ref"] == "#/components/schemas/Init"
    assert create["in_features"]["anyOf"][0]["maximum"] == 65_536
    assert known["TrainRequest"]["properties"]["epochs"]["maximum"] == 10_000
    assert known["State"]["enum"] == ["queued", "running", "succeeded", "failed", "cancelled"]
    assert known["CreateModelRequest"]["additionalProperties"] is False


def test_a_train_request_has_the_fields_and_defaults_of_the_plan() -> None:
    asked, plan = TrainRequest(), Plan()
    assert set(TrainRequest.model_fields) == set(vars(plan)) - {"path"}  # which is found, not asked for
    assert asked.plan(Engine().datasets.source) == plan
