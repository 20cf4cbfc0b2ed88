"""A safetensors file is read when it holds exactly the tensors asked for, as floats, without gap or overlap."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import save as save_torch

from service.codecs.safetensors import MAX_HEADER_BYTES, SAFETENSORS, dump, load
from service.errors import BadSafetensors
from tests.codecs.wire import (
    FULL_SHAPES,
    answer,
    any_arrays,
    decoded_or_refused,
    read_safetensors,
    refusal,
    safetensors_described,
    safetensors_file,
    safetensors_raw,
    same,
)

X = np.arange(6, dtype=np.float32).reshape(2, 3)
DATA = X.tobytes()
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name != "__metadata__")


@settings(max_examples=100)
@given(
    arrays(st.sampled_from(["<f4", "<f8", "<f2"]), FULL_SHAPES, elements=st.floats(-1e4, 1e4, width=16)),
)
def test_every_width_of_float_is_read(x):
    body = safetensors_file("inputs", x, {4: "F32", 8: "F64", 2: "F16"}[x.itemsize])
    assert same(SAFETENSORS.decode(body, x.shape[-1]), x.astype(np.float32))


@settings(max_examples=50)
@given(st.dictionaries(NAMES, any_arrays(), max_size=4))
def test_what_is_dumped_is_read_back_by_another_reader_and_by_this_one(tensors):
    body = dump(tensors)
    for found in (read_safetensors(body), load(body)):
        assert found.keys() == tensors.keys()
        assert all(same(found[name], tensors[name]) for name in tensors)


def test_a_transposed_array_is_dumped_as_it_reads():
    assert load(dump({"x": X.T}))["x"].tolist() == X.T.tolist()


def test_the_same_tensors_give_the_same_bytes_which_say_who_may_read_them():
    body = SAFETENSORS.encode(answer(X))
    assert {SAFETENSORS.encode(answer(X)) for _ in range(20)} == {body}
    (length,) = struct.unpack("<Q", body[:8])
    assert json.loads(body[8 : 8 + length])["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize("dtype", ["F64", "F16", "I32", "BOOL", "U8", "BF16", "F8_E4M3", "C64", "F99"])
def test_bytes_of_another_dtype_are_refused(dtype):
    body = safetensors_described(DATA, inputs=(dtype, [2, 3], [0, 24]))
    assert type(refusal(SAFETENSORS.decode, body, 3)) is BadSafetensors


@pytest.mark.parametrize(("dtype", "itemsize"), [("I64", 8), ("I32", 4), ("BOOL", 1), ("U8", 1), ("C64", 8)])
def test_a_whole_tensor_of_another_dtype_is_refused_by_name(dtype, itemsize):
    body = safetensors_described(bytes(6 * itemsize), inputs=(dtype, [2, 3], [0, 6 * itemsize]))
    error = refusal(SAFETENSORS.decode, body, 3)
    assert type(error) is BadSafetensors
    assert "it must be float32, float64, float16 or bfloat16" in error.detail


def test_bfloat16_and_float16_are_read_as_the_numbers_that_they_are():
    numbers = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 4, 50)[:, None]
    for dtype in (torch.bfloat16, torch.float16):
        x = numbers.clamp(-60_000, 60_000).to(dtype)
        assert np.array_equal(SAFETENSORS.decode(save_torch({"inputs": x}), 3), x.float().numpy())


def test_bfloat16_is_dumped_as_torch_rounds_to_it():
    edges = np.array([0, 0x7F7FFFFF, 0x7F800000, 0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 1, 0xFFFFFFFF], "<u4")
    drawn = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype="<u4")
    numbers = np.concatenate([edges, edges | 0x80000000, drawn]).view("<f4")
    expected = torch.from_numpy(numbers).bfloat16().float().numpy()
    np.testing.assert_array_equal(load(dump({"x": numbers}, dtype="bfloat16"))["x"], expected)


FAULTY = {
    "empty": b"",
    "no header": bytes(8),
    "a header of 2^63 - 1 bytes": struct.pack("<Q", 2**63 - 1) + b"{}",
    "a header of 2^64 - 1 bytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a header one byte too large": struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}".ljust(MAX_HEADER_BYTES + 1),
    "not JSON": safetensors_raw(b"not JSON"),
    "a list": safetensors_raw(b"[]"),
    "deep": safetensors_raw(b"[" * 100_000),
    "not UTF-8": safetensors_raw(b'{"\xff": 1}'),
    "hole at the start": safetensors_described(b"\0" * 4 + DATA, inputs=("F32", [2, 3], [4, 28])),
    "hole at the end": safetensors_described(DATA + b"\0" * 4, inputs=("F32", [2, 3], [0, 24])),
    "hole between": safetensors_described(
        DATA + b"\0" * 4 + DATA, inputs=("F32", [2, 3], [0, 24]), x=("F32", [2, 3], [28, 52])
    ),
    "overlap": safetensors_described(DATA, inputs=("F32", [2, 3], [0, 24]), x=("F32", [1], [20, 24])),
    "the same bytes twice": safetensors_described(DATA, inputs=("F32", [2, 3], [0, 24]), x=("F32", [2, 3], [0, 24])),
    "backwards": safetensors_described(DATA, inputs=("F32", [2, 3], [24, 0])),
    "beyond the end": safetensors_described(DATA, inputs=("F32", [2, 4], [0, 32])),
    "a negative size": safetensors_raw(
        b'{"inputs": {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]}}', DATA
    ),
    "a product that overflows": safetensors_described(DATA, inputs=("F32", [2**4, 2**60 + 2], [0, 24])),
    "an empty one too large": safetensors_described(inputs=("F32", [0, 2**63], [0, 0])),
    "65 dimensions": safetensors_described(b"\0" * 4, inputs=("F32", [1] * 65, [0, 4])),
    "a file of another kind": b"\x93NUMPY" + bytes(100),
}


@pytest.mark.parametrize("body", FAULTY.values(), ids=FAULTY)
def test_a_broken_file_is_refused(body):
    assert type(refusal(SAFETENSORS.decode, body, 3)) is BadSafetensors


def test_a_header_may_be_as_long_as_it_may_be_and_no_longer():
    header = json.dumps({"inputs": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    longest = safetensors_raw(header.ljust(MAX_HEADER_BYTES), DATA)
    assert same(SAFETENSORS.decode(longest, 3), X)
    error = refusal(SAFETENSORS.decode, safetensors_raw(header.ljust(MAX_HEADER_BYTES + 1), DATA), 3)
    assert type(error) is BadSafetensors
    assert error.detail == f"the header claims {MAX_HEADER_BYTES + 1} bytes; at most {MAX_HEADER_BYTES} are read"


@pytest.mark.parametrize("names", [[], ["outputs"], ["input"], ["Inputs"], ["inputs", "outputs"]])
def test_tensors_of_other_names_are_refused(names):
    error = refusal(SAFETENSORS.decode, dump(dict.fromkeys(names, X)), 3)
    assert type(error) is BadSafetensors
    assert error.detail == f"the file holds {', '.join(names) or 'nothing'}; it must hold exactly inputs"


def test_many_long_names_are_not_repeated_at_length():
    body = dump({f"{'x' * 500}{i}": X for i in range(50)})
    assert len(refusal(SAFETENSORS.decode, body, 3).detail) < 250


def test_a_file_cut_at_any_byte_is_refused():
    body = safetensors_file("inputs", X)
    for end in range(len(body)):
        assert type(refusal(SAFETENSORS.decode, body[:end], 3)) is BadSafetensors
    assert type(refusal(SAFETENSORS.decode, body + b"\0", 3)) is BadSafetensors


SIZES = st.integers(0, 3) | st.integers(0, 2**64 - 1)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "F16", "BF16", "I8", "F8_E5M2", "F4", "nonsense"]),
        "shape": st.lists(SIZES, max_size=4),
        "data_offsets": st.lists(st.sampled_from([0, 4, 8, 2**64 - 1]) | SIZES, min_size=2, max_size=2),
    }
)
ANY_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda s: st.lists(s, max_size=2), max_leaves=3
)
HEADERS = st.dictionaries(st.just("inputs") | st.just("__metadata__") | NAMES, ENTRIES | ANY_JSON, max_size=3)


@settings(max_examples=300)
@given(header=HEADERS, data=st.integers(0, 12).map(bytes))
def test_any_header_at_all_is_read_or_refused(header, data):
    decoded_or_refused(SAFETENSORS, safetensors_raw(json.dumps(header).encode(), data), 1)


def test_a_tensor_named_twice_is_refused():
    entry = b'"inputs":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}'
    error = refusal(SAFETENSORS.decode, safetensors_raw(b"{%b,%b}" % (entry, entry), bytes(4)), 1)
    assert type(error) is BadSafetensors
    assert "duplicate key" in error.detail


def test_a_long_header_is_read_where_it_holds_nobody_up():
    body = dump({"inputs": np.zeros((1, 3), np.float32)})
    assert SAFETENSORS.quick(body, 3).shape == (1, 3)
    noted = dump({"inputs": np.zeros((1, 3), np.float32)}, ("note", "n" * 5_000))
    assert SAFETENSORS.quick(noted, 3) is None
    assert SAFETENSORS.decode(noted, 3).shape == (1, 3)
