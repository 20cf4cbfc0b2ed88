"""The reference of the routes, written from the OpenAPI document that the service makes of itself."""

import json
import re
from collections.abc import Iterator
from textwrap import fill, indent
from typing import Any

from docs.schemas import Schema, fields, kind, link
from service.api.openapi import document

Operation = dict[str, Any]
FOLDER = "reference"
WIDTH = 88
ROW = re.compile(r"\[\s*([^\[\]{}]*?)\s*\]")
OF_EVERY_ANSWER = "X-Request-Id"


def pages() -> dict[str, str]:
    """Text of each page by its name: one for each tag, and one for all bodies."""
    page = document()
    written = {f"{FOLDER}/{_file(tag['name'])}": _tag(page, tag) for tag in page["tags"]}
    return {**written, f"{FOLDER}/bodies.md": _bodies(page["components"]["schemas"])}


def _file(tag: str) -> str:
    return f"{tag.replace(' ', '-')}.md"


def _tag(page: dict[str, Any], tag: dict[str, str]) -> str:
    """All routes of a tag."""
    sections = [
        _operation(method.upper(), path, operation)
        for path, methods in page["paths"].items()
        for method, operation in methods.items()
        if tag["name"] in operation["tags"]
    ]
    return "\n".join([f"# {tag['name'].capitalize()}\n", f"{tag['description']}\n", *sections])


def _operation(method: str, path: str, operation: Operation) -> str:
    """One route: what it does, what it takes, what it answers."""
    parts = [
        f"## {operation['summary']} {{#{operation['operationId']}}}\n",
        f"`{method} {path}`\n",
        f"{operation['description']}\n",
        *_parameters(operation.get("parameters", [])),
        *_request(operation.get("requestBody")),
        *_answers(operation["responses"]),
    ]
    return "\n".join(parts)


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    parameters = [each for each in parameters if "$ref" not in each]  # OF_EVERY_ANSWER, which every request may bring
    if parameters:
        yield "| parameter | in | kind | what it is |\n| --- | --- | --- | --- |"
        for each in parameters:
            name = f"`{each['name']}`" + (" (required)" if each.get("required") and each["in"] != "path" else "")
            takes = kind(each["schema"]).removesuffix(" or null")
            yield f"| {name} | {each['in']} | {takes} | {each.get('description', '')} |"
        yield ""


def _request(body: dict[str, Any] | None) -> Iterator[str]:
    if body is None:
        return
    types = ", ".join(f"`{name}`" for name in body["content"])
    yield f"**Body**{'' if body.get('required') else ' (may be left out)'}: {types}\n"
    if body.get("description"):
        yield f"{body['description']}\n"
    content = body["content"].get("application/json", {})
    if "schema" in content:
        yield f"In JSON: {link(content['schema'])}.\n"
    for name, example in content.get("examples", {}).items():
        yield from _example(f"Example: {name}", example["value"])


def _answers(responses: dict[str, Any]) -> Iterator[str]:
    problems = []
    for status, answer in responses.items():
        if status >= "4":
            slugs = [slug for content in answer.get("content", {}).values() for slug in content.get("examples", {})]
            problems.append((status, slugs))
            continue
        yield f"**{status}**: {_answer(answer)}\n"
        told = {name: header for name, header in answer.get("headers", {}).items() if name != OF_EVERY_ANSWER}
        headers = [f"`{name}` ({header['description']})" for name, header in told.items()]
        yield f"Headers: {'; '.join(headers)}.\n" if headers else ""
    if problems:
        yield "| status | problems |\n| --- | --- |"
        for status, slugs in problems:
            yield f"| {status} | {', '.join(f'[`{slug}`](problems.md#{slug})' for slug in slugs)} |"
        yield ""


def _answer(answer: dict[str, Any]) -> str:
    """What an answer is, and in which types it comes."""
    content = answer.get("content", {})
    schemas = [link(one["schema"]) for one in content.values() if "$ref" in one.get("schema", {})]
    said = schemas if answer["description"] == "Successful Response" else [answer["description"], *schemas]
    types = ", ".join(f"`{name}`" for name in content)
    return "; ".join([*said, types] if types else said)


def _example(title: str, value: Any) -> Iterator[str]:
    yield f'??? example "{title}"\n'
    yield indent(f"```json\n{_printed(value)}\n```\n", "    ")


def _printed(value: Any) -> str:
    """JSON with a line for each member, but not for each number of a row."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    text = ROW.sub(lambda row: f"[{' '.join(row[1].split())}]", text)
    lines = [fill(line, WIDTH, subsequent_indent="    ", break_long_words=False) for line in text.splitlines()]
    return "\n".join(lines)


def _bodies(schemas: dict[str, Schema]) -> str:
    """Every body and every part of one, with its fields."""
    parts = ["# Bodies\n", "Every object that the routes take or give, with its fields and an example.\n"]
    for name in sorted(schemas):
        schema = schemas[name]
        parts += [f"## {name} {{#{name}}}\n", f"{schema.get('description', '')}\n", fields(schema)]
        for example in schema.get("examples", []):
            parts += _example("Example", example)
    return "\n".join(parts)
