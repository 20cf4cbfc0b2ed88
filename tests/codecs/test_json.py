"""JSON is read strictly, refused with the byte or the element that is wrong, and written so that it reads back."""

import json
import math
import time

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bounds import NOT_FINITE
from service.codecs.codec import MAX_ELEMENTS, MAX_LISTS
from service.codecs.json import JSON, MAX_DEPTH, MAX_FIELDS, classes, dumps, numbers, parse
from service.errors import (
    DuplicateKey,
    LimitExceeded,
    MalformedJson,
    NonFinite,
    ShapeMismatch,
    TooDeep,
    Validation,
)
from tests.codecs.wire import FULL_SHAPES, MODEL_ID, answer, decoded_or_refused, finite_arrays, refusal, same

DECODES_IN_SECONDS = 5  # what takes a quadratic scan minutes

TEXT = st.text(st.characters(codec="utf-8"))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | FLOATS | TEXT
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda values: st.lists(values) | st.dictionaries(TEXT, values),
    max_leaves=20,
)


@settings(max_examples=100)
@given(VALUES)
def test_whatever_json_can_say_is_parsed_as_python_parses_it(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert parse(text.encode()) == value
        assert parse(bytearray(text.encode())) == value


@settings(max_examples=200)
@given(finite_arrays(FULL_SHAPES))
def test_the_shortest_digits_of_a_float32_read_back_exactly(x):
    digits = [np.format_float_scientific(number, trim="0") for number in x.flatten()]
    text = f'{{"inputs": [{", ".join(digits)}]}}'
    assert same(JSON.decode(text.encode(), x.size), x.flatten())


def test_every_way_to_write_a_number_is_read():
    text = b'{"inputs": [0, -0, 7, 7.0, 1e2, 1E+2, 1e-2, -1.5e0, 123456789012345678901234567890, 1e-400]}'
    expected = np.array([0, -0.0, 7, 7, 100, 100, 0.01, -1.5, 123456789012345678901234567890, 0], np.float32)
    assert same(JSON.decode(text, 10), expected)


# What is not JSON, and the byte at which that shows.
BROKEN = [
    (b" ", 0),
    (b"{", 0),
    (b"nonsense", 1),
    (b"{'inputs': [1]}", 1),
    (b'{"inputs": [1, 2,]}', 17),
    (b'{"inputs": [1, 2],}', 18),
    (b'{"inputs": [1 2]}', 14),
    (b'{"inputs": [1, 2]} x', 19),
    (b'{"inputs": [1, 2]}{}', 18),
    (b'{"inputs": [1, 2]}\x00', 18),
    (b'\xef\xbb\xbf{"inputs": [1]}', 0),
    (b'\xff\xfe{\x00"\x00', 0),
    (b'{"inputs": [.5]}', 12),
    (b'{"inputs": [+1]}', 12),
    (b'{"inputs": [0x1]}', 13),
    (b'{"inputs": [1_000]}', 13),
    (b'{"inputs": [/* no */ 1]}', 12),
    (b"{inputs: [1]}", 1),
    (b'{"inputs" [1]}', 10),
]


@pytest.mark.parametrize(("body", "byte"), BROKEN)
def test_broken_text_is_refused_with_the_byte_where_reading_stopped(body, byte):
    error = refusal(JSON.decode, body, 2)
    assert type(error) is MalformedJson
    assert error.facts == {"byte": byte}
    assert f"at byte {byte} (line 1, column " in error.detail


@pytest.mark.parametrize(
    "text",
    [
        b'"\xff"',
        b'"\xc3"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
        b'"\xf5\x80\x80\x80"',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800\\u0041"',
        b'"\\ud800x"',
        b'"\\u12"',
        b'"\\x41"',
        b'"a\x01b"',
        b'"a\nb"',
        b'"open',
        b'"open\\',
        b"[01]",
        b"[1.]",
        b"[1e]",
        b"[-]",
        b"[--1]",
        b"[-NaN]",
        b"[nan]",
        b"[True]",
        b"[undefined]",
        b"[" + b"9" * 5_000 + b"]",
    ],
)
@pytest.mark.parametrize("around", [b"%b", b'{"inputs": %b}', b'{%b: 1, "inputs": [1]}'])
def test_text_that_is_not_json_or_not_utf8_is_refused(text, around):
    error = refusal(JSON.decode, around % text, 1)
    assert type(error) is MalformedJson
    assert 0 <= error.facts["byte"] <= len(around % text)


@settings(max_examples=150)
@given(st.lists(st.sampled_from(["\n", "\r\n", " ", "\t", "\n\n  "]), min_size=4, max_size=4), TEXT)
def test_the_byte_of_a_fault_is_right_on_every_line(spaces, text):
    good = f'{{{spaces[0]}"k":{spaces[1]}{json.dumps(text)},{spaces[2]}"inputs":{spaces[3]}[1, '
    error = refusal(JSON.decode, good.encode() + b"?, 2]}", 3)
    assert type(error) is MalformedJson
    assert error.facts["byte"] == len(good.encode())


@pytest.mark.parametrize("space", ["\r\r\n", "\n\r", " \r \n "])
def test_a_carriage_return_is_just_a_space(space):
    good = f'{{{space}"inputs": [1,{space}'
    assert refusal(JSON.decode, good.encode() + b"?, 2]}", 3).facts["byte"] == len(good)


def test_a_body_cut_at_any_byte_is_refused():
    body = b'{ "inputs" : [[1.5e3, -2], [3, 4.25]] }'
    assert JSON.decode(body, 2).shape == (2, 2)
    for end in range(1, len(body)):
        error = refusal(JSON.decode, body[:end], 2)
        assert type(error) is MalformedJson
        assert error.facts["byte"] <= end


def test_an_empty_body_is_refused_as_empty():
    error = refusal(JSON.decode, b"", 2)
    assert type(error) is Validation
    assert "the body is empty" in error.detail


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 1_000, 250_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"), (b"[", b""), (b'{"a": [', b"")]
)
def test_deep_nesting_is_refused_before_it_is_parsed(levels, opening, closing):
    error = refusal(parse, opening * levels + b"1" + closing * levels)
    assert type(error) is TooDeep
    depth = levels * (opening.count(b"[") + opening.count(b"{"))
    assert error.detail == f"the JSON is nested {depth} deep; at most {MAX_DEPTH} levels are read"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_up_to_the_limit_is_read(opening, closing):
    parse(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH)


def test_brackets_side_by_side_are_not_deep():
    assert parse(b"[" + b",".join([b"[{}]"] * 30_000) + b"]") == [[{}]] * 30_000


STRINGS = st.text('[]{}"\\a', max_size=8).map(json.dumps)
CUT_STRINGS = st.sampled_from(["", '"[[', '"\\"[[', '"\\\\', '"\\'])


@settings(max_examples=300)
@given(
    st.integers(MAX_DEPTH - 5, MAX_DEPTH + 1), st.lists(st.sampled_from("[]{}a") | STRINGS, max_size=30), CUT_STRINGS
)
def test_only_brackets_outside_of_strings_nest(opened, pieces, end):
    body = b"[" * opened + "".join(pieces).encode() + end.encode()
    try:
        parse(body)
    except TooDeep:
        assert depth(body) > MAX_DEPTH
    except (MalformedJson, Validation):
        assert depth(body) <= MAX_DEPTH
    else:
        raise AssertionError("an open list was read")


def depth(body: bytes) -> int:
    """How deep a text is nested, one byte after the other."""
    level = deepest = 0
    in_string = escaped = False
    for byte in body.decode():
        if escaped:
            escaped = False
        elif in_string:
            escaped, in_string = byte == "\\", byte != '"'
        elif byte == '"':
            in_string = True
        else:
            level += (byte in "[{") - (byte in "]}")
            deepest = max(deepest, level)
    return deepest


@pytest.mark.parametrize(
    "text",
    [
        b'"' + b"[{" * 1_000_000 + b'"',
        b'"' + b'\\"[' * 1_000_000 + b'"',
        b'"' + b"\\\\[" * 1_000_000 + b'"',
        b'"[",' * 1_000_000,
        b'"' * 3_000_000 + b"[" * 101,
        b'"' + b"\\" * 3_000_000 + b"[" * 101,
        b'"' + b"\\" * 3_000_001 + b"[" * 101,
        b'\\"' * 1_500_000 + b"[" * 101,
        b'"' + b'\\"' * 1_500_000 + b"[" * 101,
        b'"' + b'[\\"' * 1_000_000,
        b'["' * 100 + b"a" * 3_000_000,
    ],
    ids=lambda text: repr(text[:8]) + repr(text[-4:]),
)
def test_quotes_and_backslashes_are_scanned_in_one_pass(text):
    started = time.monotonic()
    decoded_or_refused(JSON, b'{"inputs": %b}' % text, 1)
    assert time.monotonic() - started < DECODES_IN_SECONDS


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"[" + b"[1]," * MAX_LISTS + b"[1]]", LimitExceeded, "65538 lists; at most 65536"),
        (b"[" + b'["["],' * MAX_LISTS + b"[1]]", LimitExceeded, "65538 lists; at most 65536"),
        (b"[" + b"[]," * 1_000_000 + b"[]]", ShapeMismatch, "1000002 lists, and some are empty"),
        (b"{" + b'"a":1,' * MAX_FIELDS + b'"b":1}', LimitExceeded, "4097 fields; at most 4096"),
        (b"{" + b'"a":1,' * 2_000_000 + b'"b":1}', LimitExceeded, "2000001 fields"),
        (b"[" + b"1," * 8_000_000 + b"1]", LimitExceeded, "8000001 values"),
    ],
    ids=["lists", "lists of text", "empty lists", "fields", "many fields", "values"],
)
def test_what_would_take_long_to_read_is_refused_before_it_is_read(body, kind, says):
    started = time.monotonic()
    error = refusal(parse, body)
    assert (type(error), says in error.detail) == (kind, True), error.detail
    assert time.monotonic() - started < DECODES_IN_SECONDS


@pytest.mark.parametrize("text", ["a: b", ":" * 5_000, "[" * 5_000, '\\": ' * 500])
def test_structure_within_text_counts_for_nothing(text):
    assert parse(json.dumps({"name": text}).encode()) == {"name": text}


NOT_NUMBERS = [
    ('"7"', '"7"'),
    ("true", "true"),
    ("false", "false"),
    ("null", "null"),
    ('{"a": 1}', "an object"),
    ('"' + "x" * 90 + '"', '"' + "x" * 56 + "..."),
]


@pytest.mark.parametrize(("text", "shown"), NOT_NUMBERS)
@settings(max_examples=20)
@given(shape=FULL_SHAPES, at=st.integers(0, 10**6))
def test_what_is_no_number_is_refused_with_its_place(text, shown, shape, at):
    index = [int(i) for i in np.unravel_index(at % int(np.prod(shape)), shape)]
    error = refusal(JSON.decode, with_element(shape, index, text), shape[-1])
    place = "inputs" + "".join(f"[{i}]" for i in index)
    assert type(error) is Validation
    assert error.detail == f"{place} is {shown}; it must be a number"
    assert [fault.pointer for fault in error.faults] == ["/inputs/" + "/".join(map(str, index))]


@pytest.mark.parametrize("word", NOT_FINITE)
def test_a_word_for_what_is_not_finite_is_refused_as_such(word):
    error = refusal(JSON.decode, b'{"inputs": [[1, "%b"]]}' % word.encode(), 2)
    assert type(error) is NonFinite
    assert error.detail == f'inputs[0][1] is "{word}"; it must be a number'


def with_element(shape: tuple[int, ...], index: list[int], text: str) -> bytes:
    """A body with zeros in that shape, but for one element."""
    x = np.zeros(shape).astype(object)
    x[tuple(index)] = "HERE"
    return json.dumps({"inputs": x.tolist()}).replace('"HERE"', text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("NaN", "nan"),
        ("Infinity", "inf"),
        ("-Infinity", "-inf"),
        ("1e400", "inf"),
        ("-1e400", "-inf"),
        ("1e39", "1e+39"),
        ("9" * 400, "inf"),
        ("-" + "9" * 4_000, "-inf"),
        ("340282356779733661637539395458142568448", "3.4028235677973366e+38"),
    ],
)
def test_numbers_beyond_float32_are_refused_with_their_place(text, shown):
    error = refusal(JSON.decode, with_element((2, 4), [1, 3], text), 4)
    assert type(error) is NonFinite
    assert error.detail == f"inputs[1][3] is {shown}; every number must be finite as float32"
    assert [fault.pointer for fault in error.faults] == ["/inputs/1/3"]


def test_the_largest_number_that_rounds_to_a_float32_is_taken():
    largest, beyond = float(np.finfo(np.float32).max), 2.0**128 - 2.0**103  # half a step above rounds to infinity
    x = JSON.decode(b'{"inputs": [%r, -%r]}' % (math.nextafter(beyond, 0), math.nextafter(beyond, 0)), 2)
    assert x.tolist() == [largest, -largest]
    assert type(refusal(JSON.decode, b'{"inputs": [%r]}' % beyond, 1)) is NonFinite


@pytest.mark.parametrize(
    ("inputs", "detail", "pointer"),
    [
        ("[[1, 2], [3]]", "inputs[1] is 1 long; the first of its kind is a list of 2", "/inputs/1"),
        ("[[1, 2], [3, 4, 5]]", "inputs[1] is 3 long; the first of its kind is a list of 2", "/inputs/1"),
        ("[[1, 2], []]", "inputs[1] is 0 long; the first of its kind is a list of 2", "/inputs/1"),
        ("[[], [1]]", "inputs[1] is 1 long; the first of its kind is a list of 0", "/inputs/1"),
        ("[[1, 2], 3]", "inputs[1] is 3; the first of its kind is a list of 2", "/inputs/1"),
        ("[[1, 2], null]", "inputs[1] is null; the first of its kind is a list of 2", "/inputs/1"),
        ("[1, [2, 3]]", "inputs[1] is a list of 2; it must be a number", "/inputs/1"),
        (
            "[[[1, 2], [3, 4]], [[5, 6], [7]]]",
            "inputs[1][1] is 1 long; the first of its kind is a list of 2",
            "/inputs/1/1",
        ),
    ],
)
def test_ragged_rows_are_refused_with_the_first_that_differs(inputs, detail, pointer):
    error = refusal(JSON.decode, f'{{"inputs": {inputs}}}'.encode(), 2)
    assert type(error) is ShapeMismatch
    assert error.detail == detail
    assert [fault.pointer for fault in error.faults] == [pointer]


@settings(max_examples=100)
@given(finite_arrays(FULL_SHAPES.filter(lambda shape: len(shape) > 1)), st.data())
def test_one_row_of_another_length_is_always_found(x, data):
    nested = x.tolist()
    index = [data.draw(st.integers(0, length - 1)) for length in x.shape[:-1]]
    row = nested
    for i in index:
        row = row[i]
    row.append(0.0)
    if x[..., 0].size == 1:  # the only row sets the length
        return
    error = refusal(numbers, nested, "x")
    assert type(error) is ShapeMismatch


@pytest.mark.parametrize("inputs", ["[[]]", "[[], []]", "[[[]]]", "[" + ", ".join(["[]"] * 100_000) + "]"])
def test_rows_without_numbers_are_refused(inputs):
    assert type(refusal(JSON.decode, f'{{"inputs": {inputs}}}'.encode(), 2)) is ShapeMismatch


def test_a_batch_of_no_rows_is_legal():
    assert same(JSON.decode(b'{"inputs": []}', 3), np.empty((0, 3), np.float32))


@pytest.mark.parametrize("inputs", ["1", "null", '"x"', "{}", "true", "1.5", "NaN"])
def test_inputs_are_a_list(inputs):
    error = refusal(JSON.decode, f'{{"inputs": {inputs}}}'.encode(), 2)
    assert type(error) is Validation
    assert [fault.pointer for fault in error.faults] == ["/inputs"]


def test_the_body_is_an_object_with_inputs_and_nothing_else():
    for body in (b"[]", b"null", b'"x"', b"1", b"[[1, 2]]", b"NaN"):
        error = refusal(JSON.decode, body, 2)
        assert type(error) is Validation
        assert error.faults[0].pointer == ""
    missing = refusal(JSON.decode, b"{}", 2)
    assert missing.detail == "inputs is missing"
    assert missing.faults[0].pointer == "/inputs"
    extra = refusal(JSON.decode, b'{"inputs": [1, 2], "input": [1, 2]}', 2)
    assert extra.detail == "'input' is not a field of this request; its only field is inputs"
    assert extra.faults[0].pointer == "/input"


def test_a_long_unknown_key_is_not_repeated_at_length():
    assert len(refusal(JSON.decode, b'{"inputs": [1], "%b": 1}' % (b"x" * 10_000), 1).detail) < 150


def test_a_pointer_to_a_key_is_escaped():
    assert refusal(JSON.decode, b'{"inputs": [1], "a/b~c": 1}', 1).faults[0].pointer == "/a~1b~0c"


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [1], "inputs": [1]}',
        b'{"inputs": [1], "\\u0069nputs": [2]}',
        b'{"inputs": [1], "a": {"b": 1, "b": 2}}',
        b'{"inputs": [{"": 1, "": 2}]}',
        b'[{"a": 1}, {"a": 1, "a": 1}]',
    ],
)
def test_a_key_that_comes_twice_is_refused(body):
    error = refusal(JSON.decode, body, 1)
    assert type(error) is DuplicateKey
    assert "duplicate key" in error.detail


def test_the_same_key_in_two_objects_is_fine():
    assert parse(b'[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


def test_as_many_numbers_as_are_allowed_are_read_and_one_more_is_not():
    allowed = b"[" + b"0," * (MAX_ELEMENTS - 1) + b"0]"
    assert JSON.decode(b'{"inputs": %b}' % allowed, MAX_ELEMENTS).shape == (MAX_ELEMENTS,)
    error = refusal(JSON.decode, b'{"inputs": [0, %b' % allowed[1:] + b"}", MAX_ELEMENTS)
    assert type(error) is LimitExceeded
    assert error.facts == {"limit": MAX_ELEMENTS}


def test_many_faults_are_answered_with_the_first():
    error = refusal(JSON.decode, b'{"inputs": [%b]}' % b",".join([b'"x"'] * 300_000), 300_000)
    assert error.detail == 'inputs[0] is "x"; it must be a number'
    assert len(error.faults) == 1


@settings(max_examples=100)
@given(st.dictionaries(st.just("inputs") | TEXT, VALUES, max_size=2), st.integers(1, 4))
def test_any_json_at_all_is_decoded_or_refused(value, in_features):
    decoded_or_refused(JSON, json.dumps(value).encode(), in_features)


NESTED = st.recursive(
    st.integers() | st.floats() | st.sampled_from([None, True, "1", {}]) | st.integers(10**300, 10**320),
    lambda values: st.lists(values, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300)
@given(NESTED, st.integers(1, 3))
def test_any_nested_list_is_an_array_or_refused(inputs, in_features):
    x = decoded_or_refused(JSON, json.dumps({"inputs": inputs}).encode(), in_features)
    if x is not None and x.size:
        assert np.array_equal(x, np.array(inputs, dtype=np.float64).astype(np.float32))


@settings(max_examples=100)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_classes_are_integers_of_64_bits(value):
    found = classes(value, "data.y")
    assert found.dtype == np.int64
    assert found.tolist() == value


@pytest.mark.parametrize("bad", [1.0, True, None, "1", 2**63, -(2**63) - 1, [1], {}])
def test_what_is_no_class_is_refused_with_its_place(bad):
    error = refusal(classes, [0, 1, bad], "data.y")
    assert type(error) is Validation
    assert error.detail.startswith("data.y[2] is ")
    assert [fault.pointer for fault in error.faults] == ["/data/y/2"]


def test_a_number_where_a_class_stands_is_shown_as_a_row_of_its_own():
    error = refusal(classes, [0.5, 1.5], "data.y")
    assert error.detail == "data.y[0] is 0.5; a class is an integer, and numbers are written in rows: [[0.5], …]"


def test_numbers_of_a_field_within_another_are_pointed_at():
    error = refusal(numbers, [[1, 2], [3, "x"]], "data.x")
    assert error.detail == 'data.x[1][1] is "x"; it must be a number'
    assert [fault.pointer for fault in error.faults] == ["/data/x/1/1"]


def test_an_answer_carries_its_shape_its_model_and_its_version():
    said = json.loads(JSON.encode(answer(np.array([[1.5, -2]], np.float32), version=7)))
    assert said == {"outputs": [[1.5, -2]], "shape": [1, 2], "model_id": MODEL_ID, "model_version": 7}


def test_outputs_that_are_not_finite_are_words():
    y = np.array([[1, np.nan], [np.inf, -np.inf]], np.float32)
    body = JSON.encode(answer(y))
    said = json.loads(body, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert said["outputs"] == [[1, "NaN"], ["Infinity", "-Infinity"]]


@settings(max_examples=50)
@given(finite_arrays())
def test_arrays_within_an_object_are_dumped_as_lists(x):
    found = orjson.loads(dumps({"x": x, "of": ["a", 1]}))
    assert found["of"] == ["a", 1]
    assert np.array_equal(np.array(found["x"], np.float32).reshape(x.shape), x)


def test_more_classes_than_a_tensor_may_have_are_refused():
    with pytest.raises(LimitExceeded, match=str(MAX_ELEMENTS)):
        classes([0] * (MAX_ELEMENTS + 1), "data.y")
