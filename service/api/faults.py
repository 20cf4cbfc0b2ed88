"""What pydantic finds wrong, in sentences that teach."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice, takewhile
from typing import Any, get_args

from pydantic import BaseModel

from service.bounds import NOT_FINITE, cut, out_of_bounds, refusal, shown
from service.errors import Fault, NonFinite, Validation, pointer
from service.ids import BASE_ID, DATASET_ID, JOB_ID, MODEL_ID
from service.schemas.fields import A_DATASET_ID, A_JOB_ID, A_MODEL_ID, TEXT
from service.schemas.requests import DATA, FRACTION
from service.schemas.sweeps import LIST, RANGE, LogRange

BOUNDS = {
    "greater_than_equal": "ge",
    "greater_than": "gt",
    "less_than_equal": "le",
    "less_than": "lt",
}
EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null, or left out",
}
PATTERNS = {
    TEXT: "text without control characters",
    BASE_ID: "the id of a base, which is base_ and 64 hexadecimal digits",
    MODEL_ID: f"the id of a model, such as {A_MODEL_ID}",
    JOB_ID: "the id of a job, such as " + A_JOB_ID,
    DATASET_ID: f"the id of a data set, such as {A_DATASET_ID}",
}
# What PyTorch, PEFT, transformers and OpenAI call our fields.
SYNONYMS = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "init_lora_weights": "init",
    "learning_rate": "lr",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "steps": "epochs",
    "criterion": "loss",
    "optim": "optimizer",
    "per_device_train_batch_size": "batch_size",
    "random_state": "seed",
}
# Fields that hold one of several kinds, whose name pydantic puts into a path.
OF_SEVERAL_KINDS = ("data", "validation", "alpha", "lr")
KINDS = {*DATA, FRACTION, RANGE, LIST}
MAX_FAULTS = 20
MAX_NAME = 60

Loc = Sequence[str | int]


def from_pydantic(found: Iterable[Mapping[str, Any]], schema: type[BaseModel] | None = None) -> Validation:
    """One error of ours for all that pydantic found; its kind is that of the first fault.

    Args:
        found: what `ValidationError.errors()` lists.
        schema: of the body, whose fields are suggested where an unknown one looks misspelt.
    """
    sentences = [(_sentence(fault, schema), fault["loc"]) for fault in islice(found, MAX_FAULTS)]
    (kind, detail), _ = sentences[0]
    return kind(detail, *(Fault(pointer(*_path(loc)), each_detail) for (_, each_detail), loc in sentences))


def _similar(loc: Loc, schema: type[BaseModel] | None) -> str:
    """What to write in place of a field that is none, as the end of a sentence."""
    fields = list((_schema_at(loc, schema) or BaseModel).model_fields)
    name = cut(str(loc[-1]), MAX_NAME)
    meant = get_close_matches(SYNONYMS.get(name, name), fields, n=1)
    return f"; did you mean {meant[0]}?" if meant else f"; the fields are {', '.join(fields)}"


def _schema_at(loc: Loc, schema: type[BaseModel] | None) -> type[BaseModel] | None:
    """The schema of the object that the place is in."""
    for part in map(str, loc[:-1]):
        if part in DATA or part == RANGE:
            schema = DATA.get(part, LogRange)
        elif schema is not None and part in schema.model_fields:
            hint = schema.model_fields[part].annotation
            schema = next(_schemas_in(hint), schema)
    return schema


def _schemas_in(hint: Any) -> Iterator[type[BaseModel]]:
    """The schemas that a field may hold, or that its lists may hold."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for part in get_args(hint):
        yield from _schemas_in(part)


def _sentence(fault: Mapping[str, Any], schema: type[BaseModel] | None) -> tuple[type[Validation], str]:
    name = _name(fault["loc"])
    given, kind, context = fault["input"], fault["type"], fault.get("ctx", {})
    if kind in BOUNDS:
        rule = BOUNDS[kind]
        return refusal(str(fault["loc"][-1]), rule), out_of_bounds(name, given, rule, context[rule])
    if kind == "finite_number":
        return NonFinite, f"{name} is {given}; it must be a finite number"
    if kind == "missing":
        return Validation, f"{name} is required"
    if kind == "extra_forbidden":
        return Validation, f"{name} is not a field of this request{_similar(fault['loc'], schema)}"
    if kind == "float_type" and given in NOT_FINITE:
        return NonFinite, f"{name} is {shown(given)}; it must be a finite number"
    if kind == "float_type" and fault["loc"][-1] == FRACTION:
        return Validation, f"{name} is {shown(given)}; it must be a number between 0 and 1, or an object with a kind"
    if kind in EXPECTED:
        return Validation, f"{name} is {shown(given)}; it must be {EXPECTED[kind]}"
    if kind in ("too_short", "too_long"):
        bound = "at least" if kind == "too_short" else "at most"
        limit = context.get("min_length", context.get("max_length"))
        return Validation, f"{name} has {len(given)} items; it must have {bound} {limit}"
    if kind == "string_too_long":
        return Validation, f"{name} has {len(given)} characters; it may have at most {context['max_length']}"
    if kind in ("literal_error", "enum"):
        return Validation, f"{name} is {shown(given)}; it must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return Validation, f"{name} is {shown(given)}; it must be {PATTERNS.get(context['pattern'], 'an id')}"
    if kind == "union_tag_invalid":
        return Validation, f"{name}.kind is {shown(context['tag'])}; it must be one of {', '.join(DATA)}"
    if kind == "union_tag_not_found":
        bare = "; a fraction of the data is a bare number, such as 0.2" if name == "validation" else ""
        return Validation, f"{name}.kind is required: {', '.join(DATA)}{bare}"
    return Validation, f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _name(loc: Loc) -> str:
    """What a sentence calls it: the names that lead there, with the indices after them."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{cut(part, MAX_NAME)}" for part in _within(loc))
    return "".join(parts).removeprefix(".") or "the body"


def _path(loc: Loc) -> list[str | int]:
    """Where a pointer leads: a key of the request's own that is too long to be repeated is left out with all below."""
    return list(takewhile(lambda part: isinstance(part, int) or len(part) <= MAX_NAME, _within(loc)))


def _within(loc: Loc) -> list[str | int]:
    """Where it stands in the body: pydantic's way there names the kind of data once more than the body does."""
    return [part for i, part in enumerate(loc) if not (i and loc[i - 1] in OF_SEVERAL_KINDS and part in KINDS)]
