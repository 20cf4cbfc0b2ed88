"""Every format carries every array exactly, and refuses everything else with an error of the service."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.codecs.by_type import CODECS, JSON, NPY, RAW, SAFETENSORS
from service.codecs.codec import Codec, fault, finite, fits, place
from service.errors import Fault, LimitExceeded, NonFinite, ShapeMismatch
from tests.codecs.wire import (
    answer,
    any_arrays,
    decoded_or_refused,
    finite_arrays,
    must_be_sound,
    npy_described,
    read,
    refusal,
    safetensors_described,
    same,
    written,
)

every_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


def test_the_formats_are_known_by_their_media_types():
    assert {name: codec.media_type for name, codec in CODECS.items()} == {name: name for name in CODECS}
    assert list(CODECS) == [
        "application/json",
        "application/x-npy",
        "application/x-safetensors",
        "application/octet-stream",
    ]


@every_codec
@settings(max_examples=100)
@given(y=any_arrays())
def test_another_reader_reads_exactly_what_was_encoded(codec, y):
    assert same(read(codec, codec.encode(answer(y)), y.shape), y)


@every_codec
@settings(max_examples=100)
@given(x=finite_arrays())
def test_what_another_writer_wrote_is_decoded_exactly(codec, x):
    # Bare bytes know of no further dimensions, and no rows at all are just [] in JSON.
    flat = codec is RAW or (codec is JSON and not x.shape[0])
    assume(codec is not JSON or x.size or flat)
    expected = x.reshape(-1, x.shape[-1]) if flat else x
    decoded = codec.decode(written(codec, x), x.shape[-1])
    must_be_sound(decoded, x.shape[-1])
    assert same(decoded, expected)


@every_codec
@settings(max_examples=50)
@given(x=finite_arrays())
def test_a_bytearray_is_read_like_bytes(codec, x):
    body = written(codec, x)
    a = decoded_or_refused(codec, body, x.shape[-1])
    b = decoded_or_refused(codec, bytearray(body), x.shape[-1])
    assert (a is None and b is None) or same(a, b)


@every_codec
def test_every_float32_there_is_survives_both_ways(codec):
    bits = np.random.default_rng(0).integers(0, 2**32, 40_000, dtype=np.uint32).view(np.float32)
    x = bits[np.isfinite(bits)][:39_000].reshape(-1, 10)
    assert same(codec.decode(written(codec, x), 10), x)
    assert same(read(codec, codec.encode(answer(x)), x.shape), x)


@every_codec
@settings(max_examples=200)
@given(body=st.binary(max_size=200), in_features=st.integers(1, 9))
def test_arbitrary_bytes_are_decoded_or_refused_and_nothing_else(codec, body, in_features):
    decoded_or_refused(codec, body, in_features)


@every_codec
@settings(max_examples=150)
@given(data=st.data())
def test_a_spoilt_body_is_decoded_or_refused_and_nothing_else(codec, data):
    x = data.draw(finite_arrays())
    body = bytearray(written(codec, x))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        cut = data.draw(st.integers(0, 3))
        body[at : at + cut] = data.draw(st.sampled_from([b"", b"[", b"{", b"(", b")", b"'", b'"', b"-", b"0", b"e9"]))
    decoded_or_refused(codec, bytes(body), x.shape[-1])


@every_codec
@settings(max_examples=50)
@given(x=finite_arrays(), in_features=st.integers(1, 9))
def test_rows_of_another_length_than_the_model_are_refused(codec: Codec, x, in_features):
    if codec is RAW:
        wrong = x.nbytes % (4 * in_features) != 0
    elif codec is JSON:
        wrong = x.shape[-1] != in_features and x.shape[0] != 0 and x.size != 0
    else:
        wrong = x.shape[-1] != in_features
    if wrong:
        assert type(refusal(codec.decode, written(codec, x), in_features)) is ShapeMismatch


@pytest.mark.parametrize("codec", [JSON, NPY, SAFETENSORS], ids=lambda codec: codec.media_type)
def test_more_than_eight_dimensions_are_refused(codec):
    assert same(codec.decode(written(codec, np.ones((1,) * 8, np.float32)), 1), np.ones((1,) * 8, np.float32))
    assert type(refusal(codec.decode, written(codec, np.ones((1,) * 9, np.float32)), 1)) is LimitExceeded


@pytest.mark.parametrize("codec", [NPY, SAFETENSORS], ids=lambda codec: codec.media_type)
def test_a_tensor_without_dimensions_is_refused(codec):
    error = refusal(codec.decode, written(codec, np.array(1, np.float32)), 1)
    assert type(error) is ShapeMismatch
    assert error.detail == "inputs has shape []; its last dimension must be in_features = 1"


@pytest.mark.parametrize("shape", [[2**40, 0, 4], [2**20, 2**20, 0, 4], [1, 2**24, 0, 4]])
@pytest.mark.parametrize("codec", [NPY, SAFETENSORS], ids=lambda codec: codec.media_type)
def test_an_empty_tensor_does_not_have_millions_of_rows(codec, shape):
    # As JSON, its outputs are one pair of brackets for each of them.
    claims = {NPY: npy_described(f"{(*shape,)}"), SAFETENSORS: safetensors_described(inputs=("F32", shape, [0, 0]))}
    refusal(codec.decode, claims[codec], 4)


@every_codec
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_place(codec, bad):
    x = np.zeros((2, 4), np.float32)
    x[1, 3] = bad
    error = refusal(codec.decode, written(codec, x), 4)
    assert type(error) is NonFinite
    assert error.detail == f"inputs[1][3] is {bad}; every number must be finite as float32"
    assert [(fault.pointer, fault.detail) for fault in error.faults] == [("/inputs/1/3", error.detail)]


@settings(max_examples=100)
@given(arrays(np.float64, (2, 3), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_rounded_to_the_nearest_float32_or_refused_when_they_have_none(x):
    with np.errstate(over="ignore"):
        rounded = x.astype(np.float32)
    if np.isfinite(rounded).all():
        assert same(fits(x, 3), rounded)
    else:
        assert type(refusal(fits, x, 3)) is NonFinite


@settings(max_examples=50)
@given(arrays(st.sampled_from([">f4", "<f8", "<f2", ">f8"]), (2, 3, 4), elements=st.floats(-100, 100, width=16)))
def test_a_finite_array_is_native_and_contiguous_however_it_came(x):
    for view in (x, x.T, x[::-1], x[:, ::2], np.asfortranarray(x)):
        found = finite(view, "x")
        assert found.dtype == np.dtype("<f4")
        assert found.flags.c_contiguous
        assert np.array_equal(found, view)


@pytest.mark.parametrize(
    ("name", "index", "shown", "pointed"),
    [("inputs", [1, 3], "inputs[1][3]", "/inputs/1/3"), ("data.x", [], "data.x", "/data/x")],
)
def test_an_element_has_a_place_for_people_and_a_pointer_for_programs(name, index, shown, pointed):
    assert place(name, index) == shown
    assert fault("wrong", name, index) == Fault(pointed, "wrong")
