"""A npy file is read when it holds little-endian floats of the shape it claims, and never run or unpickled."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.codecs.npy import NPY, dump, load
from service.errors import BadNpy, ShapeMismatch
from tests.codecs.wire import (
    FULL_SHAPES,
    decoded_or_refused,
    npy_described,
    npy_file,
    npy_header,
    refusal,
    same,
)

DATA = np.arange(6, dtype=np.float32)


@settings(max_examples=100)
@given(arrays(st.sampled_from(["<f4", "<f8", "<f2"]), FULL_SHAPES, elements=st.floats(-1e4, 1e4, width=16)))
def test_every_little_endian_float_is_read_in_either_order_and_version(x):
    for version in [(1, 0), (2, 0)]:
        for ordered in (np.ascontiguousarray(x), np.asfortranarray(x)):
            assert np.array_equal(load(npy_file(ordered, version)), x)
            assert same(NPY.decode(npy_file(ordered, version), x.shape[-1]), x.astype(np.float32))


@settings(max_examples=50)
@given(arrays(st.sampled_from(["<f4", "<f8", "<i8", "|u1"]), FULL_SHAPES, elements=st.integers(0, 100)))
def test_what_is_dumped_is_what_numpy_saves(x):
    assert dump(x) == npy_file(x)
    assert dump(x.T) == npy_file(np.ascontiguousarray(x.T))


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<i4", "<i8", "|u1", "|b1", "<c8", "<U3", "|S3", "<M8[s]"])
def test_any_other_dtype_is_refused_by_name(dtype):
    error = refusal(NPY.decode, npy_file(np.zeros((2, 3), dtype)), 3)
    assert type(error) is BadNpy
    assert error.detail == f"the npy dtype is {dtype}; it must be little-endian float32, float64 or float16"


def test_objects_are_refused_and_their_pickle_is_not_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    body = npy_file(np.array([Trap()], dtype=object))
    assert type(refusal(NPY.decode, body, 1)) is BadNpy
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("descr", ["[('a', '<f4')]", "('<f4', (3,))", "[]", "None", "'O'", "'nonsense'", "'<f4'*9"])
def test_structures_and_nonsense_are_no_dtypes(descr):
    assert type(refusal(NPY.decode, npy_described("(2, 3)", descr, DATA.tobytes()), 3)) is BadNpy


@pytest.mark.parametrize("descr", ["()", "('<f4',)", "'a4'"])
def test_broken_dtypes_are_refused_too(descr):
    assert type(refusal(NPY.decode, npy_described("(2, 3)", descr, DATA.tobytes()), 3)) is BadNpy


@pytest.mark.parametrize(
    "shape", ["(-1, 3)", "(-2, -3)", "(2, -3)", "(0, -1)", "2", "[2, 3]", "(2.0, 3)", "('2', 3)", "(,6)"]
)
def test_a_shape_is_a_tuple_of_numbers_from_zero_up(shape):
    assert type(refusal(NPY.decode, npy_described(shape, data=DATA.tobytes()), 3)) is BadNpy


@pytest.mark.parametrize("shape", [(0, 2**63), (0, 2**62), (0, 2**62, 3), (0,) * 65])
def test_an_empty_array_that_cannot_be_is_refused(shape):
    refusal(NPY.decode, npy_described(str(shape)), 6)


@pytest.mark.parametrize(
    "shape",
    ["(True, 6)", str((1,) * 64 + (6,)), f"({'9' * 4_000}, {'9' * 4_000})"],
    ids=["true", "65 dimensions", "8,000 digits"],
)
def test_a_shape_that_no_array_can_have_is_refused(shape):
    refusal(NPY.decode, npy_described(shape, data=DATA.tobytes()), 6)


def test_a_huge_claim_is_not_repeated_at_length():
    refusal(NPY.decode, npy_described(f"({'9' * 4_000}, 3)"), 3)


@settings(max_examples=100)
@given(claimed=st.lists(st.integers(0, 2**62), max_size=5).map(tuple), got=st.integers(0, 50))
def test_bytes_are_as_many_as_the_shape_needs_or_the_file_is_refused(claimed, got):
    needed = 4 * int(np.prod([int(n) for n in claimed], dtype=object))
    if needed != got:
        error = refusal(load, npy_described(str(claimed), data=bytes(got)))
        assert type(error) is ShapeMismatch
        assert f"needs {needed} bytes of <f4; {got} follow the header" in error.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPX" + npy_file(DATA)[6:],
        npy_file(DATA, (3, 0)),
        b"\x93NUMPY\x09\x09" + npy_file(DATA)[8:],
        b"PK\x03\x04" + bytes(200),
        npy_header("{}"),
        npy_header("[1, 2]"),
        npy_header("{'descr': '<f4', 'fortran_order': False}"),
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}", DATA.tobytes()),
        npy_header("{'descr': '<f4', 'fortran_order': 1, 'shape': (6,)}", DATA.tobytes()),
        npy_header("__import__('os').getcwd()"),
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}" + " " * 20_000, DATA.tobytes(), 2),
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5_000 + ",)}", DATA.tobytes(), 2),
        npy_header(b"\xff\xfe\x00", DATA.tobytes()),
        npy_file(DATA)[:6] + b"\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(100),
    ],
)
def test_a_header_that_says_anything_else_is_refused(body):
    assert type(refusal(NPY.decode, body, 6)) is BadNpy


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6L,)}",
        "-" * 9_000 + "1",
        "(" * 9_000,
    ],
    ids=["cut", "python 2", "deep", "open"],
)
def test_a_header_that_python_cannot_read_is_refused(header):
    assert type(refusal(NPY.decode, npy_header(header, DATA.tobytes()), 6)) is BadNpy


@pytest.mark.parametrize("array", [DATA.reshape(2, 3), np.asfortranarray(DATA.reshape(2, 3))], ids=["C", "F"])
def test_a_file_cut_at_any_byte_is_refused(array):
    body = npy_file(array)
    for end in range(len(body)):
        assert isinstance(refusal(NPY.decode, body[:end], 3), BadNpy | ShapeMismatch)
    assert type(refusal(NPY.decode, body + b"\0", 3)) is ShapeMismatch


NAMES = st.sampled_from(["'descr'", "'fortran_order'", "'shape'", "'<f4'", "'O'", "True", "None", "1", "9" * 30])
WORDS = NAMES | st.sampled_from(list("{}:,()[]-'\"L é\n"))
TEXTS = st.lists(WORDS, max_size=25)


@settings(max_examples=300)
@given(header=TEXTS.map("".join) | st.text(max_size=40), data=st.binary(max_size=24))
def test_any_header_at_all_is_read_or_refused(header, data):
    decoded_or_refused(NPY, npy_header(header, data), 1)


@settings(max_examples=300)
@given(
    shape=st.recursive(st.integers() | st.booleans() | st.none(), lambda s: st.lists(s).map(tuple), max_leaves=4),
    descr=st.recursive(st.sampled_from(["<f4", ">f4", "O", "V", ""]), lambda s: st.lists(s).map(tuple) | st.lists(s)),
)
def test_any_claim_at_all_is_read_or_refused(shape, descr):
    decoded_or_refused(NPY, npy_described(repr(shape), repr(descr), bytes(8)), 1)
