"""`docs/openapi.json`: the page that is served, and one that generators of clients, linters and readers like."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from service.api import openapi
from service.schemas.fields import NESTED_NUMBERS
from tests.running import Service

FROZEN = Path(__file__).parents[2] / "docs" / "openapi.json"
# What bounds a part of a JSON body; and what has no bound, being only compared with what is there or passed over.
BOUNDS = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "enum", "const", "pattern"}
PASSED_OVER = {"version", "binary_data_size", "parameters"}
# What generators make of what has no name of its own.
NAMELESS = re.compile(r"_|^Body|Input$|Output$|Response\d|Type\d|^Anonymous")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return openapi.document()


def operations(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in page["paths"].values() for operation in methods.values()]


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every object within a JSON value that is no example."""
    if isinstance(node, dict):
        yield node
        for name, value in node.items():
            if name not in ("example", "examples") or "$ref" in value:
                yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def shown(page: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """(schema, example) for every example on the page: of schemas themselves, of bodies, parameters and answers."""
    known = page["components"]["examples"]
    for each in objects(page):
        examples = each.get("examples", [])
        if isinstance(examples, list):  # of JSON Schema
            yield from ((each, example) for example in examples)
        elif "schema" in each:  # of OpenAPI
            for example in examples.values():
                yield each["schema"], known.get(example.get("$ref", "").rpartition("/")[2], example)["value"]
        if "schema" in each and "example" in each:
            yield each["schema"], each["example"]


def test_the_frozen_page_is_the_one_that_is_served(service: Service) -> None:
    assert service.http.get("/openapi.json").json() == json.loads(openapi.text())
    assert FROZEN.read_text() == openapi.text(), (
        "the API is no longer what docs/openapi.json says; if that is meant, run `make openapi` and commit the file"
    )


def test_the_page_is_valid_openapi(page: dict[str, Any]) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(page).iter_errors()] == []


def test_every_example_fits_its_schema(page: dict[str, Any]) -> None:
    examples = list(shown(page))
    for schema, example in examples:
        Draft202012Validator({**schema, "components": page["components"]}).validate(example)
    assert len(examples) > 300


def test_every_body_and_answer_has_a_schema(page: dict[str, Any]) -> None:
    for each in objects(page["paths"]):
        for media_type, body in each.get("content", {}).items():
            assert body.get("schema"), media_type


def test_every_tag_is_explained_and_used(page: dict[str, Any]) -> None:
    used = {tag for operation in operations(page) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in page["tags"] if tag["description"]}


def test_every_parameter_is_explained_and_never_null(page: dict[str, Any]) -> None:
    for operation in operations(page):
        for given in operation["parameters"]:
            parameter = page["components"]["parameters"]["X-Request-Id"] if "$ref" in given else given
            assert parameter["description"], (operation["operationId"], parameter["name"])
            assert "anyOf" not in parameter["schema"]
            assert "type" in parameter["schema"] or "$ref" in parameter["schema"]
            assert not {"ge", "le", "gt", "lt"} & set(parameter["schema"])


def test_choices_have_a_name_and_schemas_one_of_a_readers(page: dict[str, Any]) -> None:
    known = page["components"]["schemas"]
    listed = [each for each in objects(page) if "enum" in each]
    named = [schema for schema in known.values() if "enum" in schema]
    inline = [each for each in listed if not any(each is schema for schema in named)]
    assert [each["enum"] for each in inline] == [["ok", "ready"], ["running", "ended"]]
    assert [name for name in known if NAMELESS.search(name) and name not in ("InferInput", "InferOutput")] == []


def test_no_field_has_a_default_that_clients_would_send_along(page: dict[str, Any]) -> None:
    for schema in page["components"]["schemas"].values():
        assert not [name for name, field in schema.get("properties", {}).items() if "default" in field]


def asked(page: dict[str, Any], name: str, node: Any, seen: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of the field, schema) for all that a JSON body may hold, but for the numbers within tensors."""
    if node.get("items") == NESTED_NUMBERS["items"]:
        return
    yield name, node
    if (reference := node.get("$ref", "")) and reference not in seen:
        seen.add(reference)
        yield from asked(page, name, page["components"]["schemas"][reference.rpartition("/")[2]], seen)
    for field, inner in node.get("properties", {}).items():
        yield from asked(page, field, inner, seen)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from asked(page, name, node[key], seen)
    for inner in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from asked(page, name, inner, seen)


def test_every_count_list_and_text_of_a_body_has_a_bound(page: dict[str, Any]) -> None:
    """Tensors are bounded by the number of their elements, which a JSON schema cannot say."""
    bodies = [
        body["content"]["application/json"]["schema"]
        for each in operations(page)
        if (body := each.get("requestBody")) and "application/json" in body["content"]
    ]
    seen = set[str]()
    parts = [part for body in bodies for part in asked(page, "", body, seen)]
    free = {
        name
        for name, part in parts
        if part.get("type") in ("integer", "string", "array", "object")
        and not BOUNDS & part.keys()
        and part.get("additionalProperties") is not False
    }
    assert free == PASSED_OVER
    assert len(parts) > 200


def test_one_of_several_kinds_is_told_by_a_field_that_all_of_them_require(page: dict[str, Any]) -> None:
    told = [each for each in objects(page) if "discriminator" in each]
    for each in told:
        field, mapping = each["discriminator"]["propertyName"], each["discriminator"]["mapping"]
        for word, place in mapping.items():
            schema = page["components"]["schemas"][place.rpartition("/")[2]]
            assert field in schema["required"]
            assert schema["properties"][field]["const"] == word
    assert told
