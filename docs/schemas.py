"""JSON schemas in words: what kind of value a field takes, and the fields of an object as a table."""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
# The bounds that may come in pairs, and what they count.
RANGES = [("minimum", "maximum", ""), ("minItems", "maxItems", " items"), ("minLength", "maxLength", " characters")]
ALONE = {
    "minimum": "at least {:,}",
    "maximum": "at most {:,}",
    "exclusiveMinimum": "above {:,}",
    "exclusiveMaximum": "below {:,}",
    "minItems": "at least {:,} items",
    "maxItems": "at most {:,} items",
    "minLength": "at least {:,} characters",
    "maxLength": "at most {:,} characters",
    "maxProperties": "at most {:,} pairs",
}


def link(schema: Schema) -> str:
    """The place of a schema among the bodies, or what kind of value it takes."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return f"[{name}](bodies.md#{name})" if name else kind(schema)


def kind(schema: Schema) -> str:
    """The values that a schema takes, in words that fit into a cell."""
    if "$ref" in schema:
        return link(schema)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(kind(each) for each in schema[several]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    bounds = ", ".join(_bounds(schema))
    return f"{_named(schema)} ({bounds})" if bounds else _named(schema)


def fields(schema: Schema) -> str:
    """A table of an object's fields, whose descriptions tell the defaults; for what is no object, its values."""
    if "properties" not in schema:
        return f"{kind(schema)}\n"
    rows = ["| field | kind | what it is |", "| --- | --- | --- |"]
    for name, field in schema["properties"].items():
        known = f"`{name}`" + (" (required)" if name in schema.get("required", []) else "")
        rows.append(f"| {known} | {kind(field)} | {field.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _named(schema: Schema) -> str:
    named = {"array": _list_of, "object": _object_of}.get(schema.get("type", ""))
    return named(schema) if named else str(schema.get("format") or schema.get("type", "any value"))


def _list_of(schema: Schema) -> str:
    items = schema.get("items", {})
    nested = "anyOf" in items and "items" in items["anyOf"][-1]
    return "nested lists of numbers" if nested else f"list of: {kind(items)}" if items else "list"


def _object_of(schema: Schema) -> str:
    values = schema.get("additionalProperties")
    return f"object of: {kind(values)}" if isinstance(values, dict) and values else "object"


def _bounds(schema: Schema) -> Iterator[str]:
    """The bounds in words: `1 to 16`, `2 items`, `above 0`."""
    told = set()
    for low, high, of_what in RANGES:
        if low in schema and high in schema:
            told |= {low, high}
            least, most = f"{schema[low]:,}", f"{schema[high]:,}"
            yield f"{least}{of_what}" if least == most else f"{least} to {most}{of_what}"
    yield from (text.format(schema[bound]) for bound, text in ALONE.items() if bound in schema and bound not in told)
