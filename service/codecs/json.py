"""JSON: strict text to Python values, nested numbers to arrays, and arrays back to text."""

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

import jiter
import numpy as np
import orjson
from numpy.typing import NDArray

from service.bounds import NOT_FINITE, cut, shown
from service.codecs import flat
from service.codecs.codec import (
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_LISTS,
    Answer,
    Array,
    Codec,
    fault,
    finite,
    fits,
    place,
)
from service.errors import (
    DuplicateKey,
    Fault,
    LimitExceeded,
    MalformedJson,
    NonFinite,
    ShapeMismatch,
    TooDeep,
    Validation,
    pointer,
)

MAX_DEPTH = 100
MAX_FIELDS = 4_096  # of all its objects: whoever reads many holds up the whole process
MAX_VALUES = 2 * MAX_ELEMENTS + 2**14  # x, y and everything else

Written = Callable[[Array], Any]

INSTEAD = "send large tensors in a binary format, and rows to train on by POST /datasets"

_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}:"'))
_WHERE = re.compile(r" at line (\d+) column (\d+)$")


def parse(body: bytes | bytearray) -> Any:
    """The value that the text stands for; numbers like NaN and 1e400 pass, since who reads them names the field.

    Raises:
        TooDeep, LimitExceeded, MalformedJson, DuplicateKey
        Validation: for an empty body.
    """
    if not body:
        raise Validation("the body is empty; send a JSON object", Fault("", "the body is empty"))
    body = bytes(body)
    _check_structure(body)
    try:
        return jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=True)
    except ValueError as error:
        raise _unreadable(body, str(error)) from None


def _check_structure(body: bytes) -> None:
    """Refuse, before it is read, what would take long to read or is deeper than anyone needs."""
    values = body.count(b",") + 1  # commas in text count as well; the limit has room for them
    _check_most(values, MAX_VALUES, "values", f", so {INSTEAD}")
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH and body.count(b":") <= MAX_FIELDS:
        return
    # Without its escapes, each quote begins or ends a string; what stands within one is no structure.
    kept = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_STRUCTURE)
    marks = np.frombuffer(kept, dtype=np.uint8)
    marks = marks[~np.logical_xor.accumulate(marks == ord('"'))]
    steps = _STEPS[marks]
    depth = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
    if depth > MAX_DEPTH:
        raise TooDeep(f"the JSON is nested {depth} deep; at most {MAX_DEPTH} levels are read", limit=MAX_DEPTH)
    _check_most(int((marks == ord(":")).sum()), MAX_FIELDS, "fields", "; see /docs for those there are")
    lists = int((steps == 1).sum())
    if lists > MAX_LISTS and b"[]" in body:
        detail = f"the body has {lists} lists, and some are empty; each row needs in_features numbers"
        raise ShapeMismatch(detail, Fault("", detail))
    _check_most(lists, MAX_LISTS, "lists", f", so {INSTEAD}")


def _check_most(count: int, limit: int, things: str, advice: str) -> None:
    if count > limit:
        detail = f"the body has {count} {things}; at most {limit} are read"
        raise LimitExceeded(detail + advice, Fault("", detail), limit=limit)


def _unreadable(body: bytes, message: str) -> Validation | MalformedJson:
    """The error for what jiter says, with its line and column as a byte offset."""
    at = _WHERE.search(message)
    line, column = (int(at[1]), int(at[2])) if at else (1, 0)
    offset = sum(len(earlier) + 1 for earlier in body.split(b"\n", line - 1)[: line - 1]) + max(column - 1, 0)
    cause = cut(_WHERE.sub("", message), 100)
    if "duplicate key" in cause:
        return DuplicateKey(f"{cause[0].lower()}{cause[1:]} before byte {offset}", Fault("", cause))
    return MalformedJson(f"{cause} at byte {offset} (line {line}, column {column})", byte=offset)


def numbers(value: Any, name: str) -> Array:
    """Nested lists of numbers as a float32 array.

    Raises:
        ShapeMismatch: for rows of different lengths, with the first that differs.
        Validation: for anything that is not a number, with its place.
        NonFinite, LimitExceeded
    """
    shape = _shape(value, name)
    items: list[Any] = [value]
    for depth, length in enumerate(shape):
        _check_lengths(items, length, name, shape[:depth])
        items = list(chain.from_iterable(items))
        _check_count(items, name)
    _check_types(items, name, shape)
    try:
        flat = np.array(items, dtype=np.float64)
    except OverflowError:  # an integer beyond float64
        flat = np.array([float(str(item)) for item in items])
    return finite(flat.reshape(shape), name)


def classes(value: list[Any], name: str) -> NDArray[np.int64]:
    """A flat list of integers as an int64 array; range is for whoever knows the number of classes."""
    _check_count(value, name)
    for i, item in enumerate(value):
        if type(item) is not int or not -(2**63) <= item < 2**63:
            rows = f", and numbers are written in rows: [[{shown(item)}], …]" if isinstance(item, float) else ""
            detail = f"{name}[{i}] is {shown(item)}; a class is an integer{rows}"
            raise Validation(detail, fault(detail, name, [i]))
    return np.array(value, dtype=np.int64)


def _check_count(items: list[Any], name: str) -> None:
    if len(items) > MAX_ELEMENTS:
        raise LimitExceeded(
            f"{name} has more than {MAX_ELEMENTS} elements; {INSTEAD}",
            fault(f"at most {MAX_ELEMENTS} elements", name),
            limit=MAX_ELEMENTS,
        )


def _shape(value: Any, name: str) -> tuple[int, ...]:
    """The lengths along the first element of each level."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > MAX_DIMENSIONS:
            raise LimitExceeded(
                f"{name} has more than {MAX_DIMENSIONS} dimensions",
                fault(f"at most {MAX_DIMENSIONS} dimensions", name),
                limit=MAX_DIMENSIONS,
            )
        if not value:
            break
        value = value[0]
    if not shape:
        detail = f"{name} is {shown(value)}; it must be a list of numbers, or lists of such"
        raise Validation(detail, fault(detail, name))
    return tuple(shape)


def _check_lengths(items: list[Any], length: int, name: str, above: tuple[int, ...]) -> None:
    for i, item in enumerate(items):
        if type(item) is not list or len(item) != length:
            got = f"{len(item)} long" if isinstance(item, list) else shown(item)
            index = _index(i, above)
            raise ShapeMismatch(
                f"{place(name, index)} is {got}; the first of its kind is a list of {length}",
                fault(f"expected a list of {length}", name, index),
            )


def _check_types(items: list[Any], name: str, shape: tuple[int, ...]) -> None:
    if set(map(type, items)) <= {float, int}:
        return
    i, item = next((i, item) for i, item in enumerate(items) if type(item) not in (float, int))
    index = _index(i, shape)
    detail = f"{place(name, index)} is {shown(item)}; it must be a number"
    kind = ShapeMismatch if isinstance(item, list) else NonFinite if item in NOT_FINITE else Validation
    raise kind(detail, fault(detail, name, index))


def _index(i: int, shape: tuple[int, ...]) -> list[int]:
    return [int(k) for k in np.unravel_index(i, shape)] if shape else []


def quick(body: bytes | bytearray, in_features: int) -> Array | None:
    """The tensor where it is one row or more, and right; None for what is to be read with more care."""
    inputs = flat.inputs(body)
    if inputs is None or inputs.shape[-1] != in_features:
        return None
    return inputs.astype(np.float32)


def decode(body: bytes | bytearray, in_features: int) -> Array:
    """The tensor of `{"inputs": T}`."""
    usual = quick(body, in_features)
    if usual is not None:
        return usual
    value = parse(body)
    if not isinstance(value, dict) or set(value) != {"inputs"}:
        raise _not_inputs(value)
    return tensor(value["inputs"], in_features, "inputs")


def tensor(value: Any, in_features: int, name: str) -> Array:
    """Nested lists of numbers as inputs of a model; raises what `numbers` and `fits` raise."""
    if value == []:  # no rows at all: JSON cannot say how long they would be
        return np.empty((0, in_features), dtype=np.float32)
    return fits(numbers(value, name), in_features, name)


def _not_inputs(value: Any) -> Validation:
    if not isinstance(value, dict):
        detail = f'the body is {shown(value)}; it must be an object like {{"inputs": [[0.1, 0.2]]}}'
        return Validation(detail, Fault("", detail))
    missing = [] if "inputs" in value else [Fault("/inputs", "inputs is required")]
    if not value:
        return Validation("inputs is missing", *missing)
    extra = next(key for key in value if key != "inputs")[:60]
    meant = "did you mean inputs?" if missing and get_close_matches(extra, ["inputs"]) else "its only field is inputs"
    detail = f"{extra!r} is not a field of this request; {meant}"
    return Validation(detail, Fault(pointer(extra), detail), *missing)


def encode(answer: Answer) -> bytes:
    """`{"outputs", "shape", "model_id", "model_version"}`; float32 numbers read back exactly."""
    must_be_writable(answer.outputs.size)
    return dumped(lambda written: _told(answer, written))


def encode_all(answers: Sequence[Answer]) -> bytes:
    """`{"items": [{"outputs", "shape", "model_id", "model_version"}, …]}`."""
    must_be_writable(sum(answer.outputs.size for answer in answers))
    return dumped(lambda written: {"items": [_told(answer, written) for answer in answers]})


def must_be_writable(outputs: int, instead: str = "a binary type in Accept") -> None:
    """Raise LimitExceeded for more numbers than JSON should be blown up to."""
    if outputs > MAX_ELEMENTS:
        detail = f"the outputs have {outputs} numbers; JSON carries at most {MAX_ELEMENTS}"
        raise LimitExceeded(f"{detail}, so ask for {instead}", Fault("", detail), limit=MAX_ELEMENTS)


def dumped(tell: Callable[[Written], Any]) -> bytes:
    """What is told as JSON; `tell` is given how to write an array, which is in words where a number is not finite."""
    text = dumps(tell(lambda array: array))
    return dumps(tell(lambda array: worded(array.tolist()))) if b"null" in text else text


def _told(answer: Answer, written: Written) -> dict[str, Any]:
    return {
        "outputs": written(answer.outputs),
        "shape": answer.outputs.shape,
        "model_id": answer.model_id,
        "model_version": answer.model_version,
    }


def dumps(value: Any) -> bytes:
    """Compact JSON, arrays included."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def worded(value: Any) -> Any:
    """Nested numbers with NaN and infinities as words, as proto3's JSON has them: JSON itself has none."""
    if isinstance(value, list):
        return [worded(item) for item in value]
    if value != value:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, value)


JSON = Codec("application/json", decode, encode, quick)
