"""Bare bytes are whole rows of little-endian float32 or nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs.raw import RAW
from service.errors import ShapeMismatch
from tests.codecs.wire import answer, refusal


@settings(max_examples=100)
@given(rows=st.integers(0, 5), in_features=st.integers(1, 5), extra=st.integers(1, 19))
def test_bytes_that_are_not_whole_rows_are_refused(rows, in_features, extra):
    row_bytes = 4 * in_features
    body = bytes(rows * row_bytes)
    assert RAW.decode(body, in_features).shape == (rows, in_features)
    if extra % row_bytes:
        error = refusal(RAW.decode, body + bytes(extra), in_features)
        assert type(error) is ShapeMismatch
        assert error.detail == (
            f"the body has {len(body) + extra} bytes; a row of {in_features} float32 has {row_bytes}"
        )


def test_a_body_cut_anywhere_inside_a_row_is_refused():
    body = np.ones((2, 3), np.float32).tobytes()
    for end in range(len(body)):
        if end % 12:
            assert type(refusal(RAW.decode, body[:end], 3)) is ShapeMismatch


def test_bytes_are_little_endian_and_row_by_row():
    assert RAW.decode(b"\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40", 2).tolist() == [[1, 2], [3, 4]]
    assert RAW.encode(answer(np.array([[1, 2]], np.float32))) == b"\0\0\x80\x3f\0\0\0\x40"


@pytest.mark.parametrize("y", [np.arange(6, dtype=np.float32).reshape(2, 3).T, np.arange(6, dtype=">f4")])
def test_outputs_of_any_layout_are_encoded_in_the_one_of_the_wire(y):
    assert np.frombuffer(RAW.encode(answer(y)), "<f4").tolist() == y.flatten().tolist()
