"""The quick reader of forward bodies: it gives what the strict one gives, or leaves the body to it."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.codecs import flat
from service.codecs.codec import MAX_LISTS, finite
from service.codecs.json import numbers, parse
from service.errors import NonFinite

NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.floats(width=32)
VALUES: st.SearchStrategy[Any] = st.recursive(
    NUMBERS | st.booleans() | st.none() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["inputs", "[", ""]), inner),
    max_leaves=12,
)
ROWS = st.integers(0, 4).flatmap(lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), max_size=4))


@given(inputs=ROWS | st.lists(NUMBERS) | VALUES, space=st.sampled_from(["", " ", "\n\t"]))
def test_what_it_reads_the_strict_reader_reads_to_the_same_numbers(inputs: Any, space: str) -> None:
    body = json.dumps({"inputs": inputs}, separators=(f",{space}", f":{space}")).encode()
    quick = flat.inputs(body)
    if quick is None:
        return
    try:
        strict = numbers(parse(body)["inputs"], "inputs")
    except NonFinite:
        with pytest.raises(NonFinite):
            finite(quick, "inputs")
    else:
        assert quick.shape == strict.shape
        np.testing.assert_array_equal(finite(quick, "inputs"), strict)


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3)))
def test_rows_of_numbers_are_read_whenever_there_are_any(rows: list[list[float]]) -> None:
    quick = flat.inputs(json.dumps({"inputs": rows}).encode())
    assert (quick is None) == (not rows)
    if quick is not None:
        np.testing.assert_array_equal(quick, rows)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b'{"inputs": 1}',
        b'{"inputs": [1], "more": 2}',
        b'{"inputs": [1], "inputs": [2]}',
        b'\xef\xbb\xbf{"inputs": [1]}',
        b'{"inputs": [1]} x',
        b'{"inputs": [1',
        b'{"inputs": [[1, [2, 3]], []]}',
        b'{"inputs": [1, [2], [[3]]]}',
        b'{"inputs": [[1, 2], [3]]}',
        b'{"inputs": [[[1]]]}',
        b'{"inputs": ["1"]}',
        b'{"inputs": [true, null]}',
        b'{"inputs": [NaN, 1e400]}',
        b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"inputs": [' + b"1," * 2**20 + b"1]}",
    ],
    ids=lambda body: body[:30].decode(errors="replace"),
)
def test_everything_else_is_left_to_the_strict_reader(body: bytes) -> None:
    assert flat.inputs(body) is None
    good = flat.inputs(bytearray(b'{"inputs": [[1, 2]]}'))  # what came before leaves nothing behind
    assert good is not None
    assert good.tolist() == [[1, 2]]


def test_as_many_lists_are_read_as_the_strict_reader_reads() -> None:
    def rows(n: int) -> bytes:
        return b'{"inputs": [' + b",".join([b"[1]"] * n) + b"]}"

    assert flat.inputs(rows(MAX_LISTS - 2)) is not None
    assert flat.inputs(rows(MAX_LISTS - 1)) is None
