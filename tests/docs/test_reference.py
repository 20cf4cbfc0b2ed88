"""The reference: schemas in words, and examples that are still JSON."""

import json
import re
from typing import Any

import pytest

from docs.reference import pages
from docs.schemas import kind


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 10_000}, "integer (1 to 10,000)"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 5}, "number (at most 5, above 0)"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}, "list of: number (2 items)"),
        ({"anyOf": [{"$ref": "#/components/schemas/Job"}, {"type": "null"}]}, "[Job](bodies.md#Job) or null"),
        ({"enum": ["adam", "sgd"], "type": "string"}, "`adam`, `sgd`"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "object of: string"),
        ({"type": "string", "format": "date-time"}, "date-time"),
    ],
)
def test_a_schema_reads_as_words(schema: dict[str, Any], words: str) -> None:
    assert kind(schema) == words


def test_every_example_is_json_in_short_lines() -> None:
    found = [
        text for page in pages().values() for text in re.findall(r"^ {4}```json\n(.*?)^ {4}```", page, re.M | re.S)
    ]
    assert len(found) > 30
    for text in found:
        json.loads(text)
    numbers = [line for text in found for line in text.splitlines() if re.fullmatch(r"[\s\d.,\[\]-]+", line)]
    assert max(map(len, numbers)) < 100
