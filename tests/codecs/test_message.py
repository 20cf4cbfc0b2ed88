"""What is packed for a worker is unpacked as it was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.codecs.message import ALIGNED_BYTES, LENGTH_BYTES, pack, unpack

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Surrogates alone have no UTF-8.
    | st.text(st.characters(codec="utf-8")),
    lambda values: st.lists(values) | st.dictionaries(st.text(st.characters(codec="utf-8")), values),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8")), JSON_VALUES, max_size=4)
ARRAYS = arrays(
    st.sampled_from(["<f4", "<f8", "<i8", "|u1"]),
    array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
    elements=st.integers(0, 100),
)


@settings(max_examples=75)
@given(OBJECTS, st.dictionaries(st.text("abxyAB_", min_size=1, max_size=5), ARRAYS, max_size=4))
def test_a_message_carries_its_object_and_its_arrays(value, tensors):
    found, arrays_found = unpack(pack(value, tensors))
    assert found == value
    assert arrays_found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert arrays_found[name].dtype == tensor.dtype
        assert arrays_found[name].shape == tensor.shape
        assert arrays_found[name].tobytes() == tensor.tobytes()


def test_a_message_without_arrays_is_its_object():
    assert bytes(pack({"say": "ready"})).rstrip(b"\0") == b"\x14" + bytes(7) + b'[{"say":"ready"},[]]'
    assert unpack(pack({"say": "ready"})) == ({"say": "ready"}, {})


def test_every_array_begins_where_fast_loops_like_it():
    tensors = {"a": np.ones(3, np.uint8), "b": np.ones((2, 5), np.float32), "c": np.ones(7, np.int64)}
    message = np.frombuffer(pack({"x": "y" * 13}, tensors), np.uint8)
    _, found = unpack(message.data)
    first = found["a"].ctypes.data
    assert [(array.ctypes.data - first) % ALIGNED_BYTES for array in found.values()] == [0, 0, 0]


def test_losses_are_carried_to_the_last_bit():
    losses = np.random.default_rng(0).standard_normal(1_000).tolist()
    assert unpack(pack({"losses": losses}))[0]["losses"] == losses


def test_unpacked_arrays_may_be_written_to():
    _, found = unpack(pack({}, {"x": np.zeros(3, np.float32)}))
    assert found["x"].flags.writeable


@pytest.mark.parametrize("view", [lambda x: x.T, lambda x: x[:, ::2], lambda x: x[::-1]])
def test_views_are_packed_as_they_read(view):
    x = view(np.arange(12, dtype=np.float32).reshape(3, 4))
    assert np.array_equal(unpack(pack({}, {"x": x}))[1]["x"], x)


@pytest.mark.parametrize("dtype", [",f4", "<f4,<f4", "O", "<U4", "<M8[s]", ""])
def test_a_dtype_that_is_no_number_is_refused(dtype):
    message = bytes(pack({}, {"A": np.ones(2, np.float32)})).replace(b'"<f4"', f'"{dtype}"'.encode(), 1)
    length = int.from_bytes(message[:LENGTH_BYTES], "little") + len(dtype) - len("<f4")
    with pytest.raises(ValueError, match="carries no arrays of dtype"):
        unpack(length.to_bytes(LENGTH_BYTES, "little") + message[LENGTH_BYTES:])
