"""What pydantic finds wrong, in sentences that teach."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from service.bounds import out_of_bounds, refusal, shown
from service.errors import Fault, NonFinite, Validation, pointer
from service.ids import BASE_ID, MODEL_ID
from service.lora.spec import PLANNED_INITS
from service.schemas.fields import A_MODEL_ID, TEXT
from service.training.plan import DATA_KINDS

BOUNDS = {
    "greater_than_equal": "ge",
    "greater_than": "gt",
    "less_than_equal": "le",
    "less_than": "lt",
}
EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
PATTERNS = {
    TEXT: "text without control characters",
    BASE_ID: "the id of a base, which is base_ and 64 hexadecimal digits",
    MODEL_ID: f"the id of a model, such as {A_MODEL_ID}",
}
MAX_FAULTS = 20

Loc = Sequence[str | int]


def from_pydantic(found: Iterable[Mapping[str, Any]], fields: Sequence[str] = ()) -> Validation:
    """One error of ours for all that pydantic found; its kind is that of the first fault.

    Args:
        found: what `ValidationError.errors()` lists.
        fields: names to suggest where an unknown one looks misspelt.
    """
    faults: list[Fault] = []
    kind: type[Validation] | None = None
    for fault in found:
        each_kind, detail = _sentence(fault, fields)
        kind = kind or each_kind
        faults.append(Fault(pointer(*_path(fault["loc"])), detail))
        if len(faults) == MAX_FAULTS:
            break
    return (kind or Validation)(faults[0].detail, *faults)


def field_names(schema: type[BaseModel]) -> list[str]:
    """The fields of a body and of the bodies within it."""
    definitions = schema.model_json_schema().get("$defs", {}).values()
    nested = [name for definition in definitions for name in definition.get("properties", {})]
    return [*schema.model_fields, *nested]


def _sentence(fault: Mapping[str, Any], fields: Sequence[str]) -> tuple[type[Validation], str]:
    name = _name(fault["loc"])
    given, kind, context = fault["input"], fault["type"], fault.get("ctx", {})
    if kind in BOUNDS:
        rule = BOUNDS[kind]
        return refusal(name, rule), out_of_bounds(name, given, rule, context[rule])
    if kind == "finite_number":
        return NonFinite, f"{name} is {given}; it must be a finite number"
    if kind == "missing":
        return Validation, f"{name} is required"
    if kind == "extra_forbidden":
        similar = get_close_matches(name, fields, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else f"; the fields are {', '.join(fields)}"
        return Validation, f"{name[:60]} is not a field of this request{hint}"
    if kind in EXPECTED:
        return Validation, f"{name} is {shown(given)}; it must be {EXPECTED[kind]}"
    if kind in ("too_short", "too_long"):
        bound = "at least" if kind == "too_short" else "at most"
        limit = context.get("min_length", context.get("max_length"))
        return Validation, f"{name} has {context['actual_length']} items; it must have {bound} {limit}"
    if kind == "literal_error":
        planned = ", which does not exist here yet" if given in PLANNED_INITS else ""
        return Validation, f"{name} is {shown(given)}{planned}; it must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return Validation, f"{name} is {shown(given)}; it must be {PATTERNS.get(context['pattern'], 'an id')}"
    if kind == "union_tag_invalid":
        return Validation, f"kind is {shown(context['tag'])}; it must be one of {context['expected_tags']}"
    if kind == "union_tag_not_found":
        return Validation, "kind is required: random, teacher, digits or inline"
    return Validation, f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _name(loc: Loc) -> str:
    """What a sentence calls it: the last name, with the indices after it."""
    name = "the body"
    for part in _path(loc):
        name = f"{name}[{part}]" if isinstance(part, int) else part[:60]
    return name


def _path(loc: Loc) -> list[str | int]:
    """Where it stands in the body: pydantic's way there names the kind of data once more than the body does."""
    return [part for i, part in enumerate(loc) if not (i and loc[i - 1] == "data" and part in DATA_KINDS)]
