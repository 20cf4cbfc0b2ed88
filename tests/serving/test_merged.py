"""Merged weights are kept for the layers that run most, in no more bytes than they may take."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lora.grouped import Maps
from service.serving.merged import Merged

SIZE = 4 * 6 * 5


def maps(seed: int = 0) -> Maps:
    draw = np.random.default_rng(seed)
    weight, down, up = (draw.standard_normal(shape, np.float32) for shape in ((6, 5), (6, 2), (2, 5)))
    return Maps(weight, None, down, up, 0.5)


def test_a_layer_is_merged_when_it_runs_a_second_time():
    merged, layer = Merged(10 * SIZE), maps()
    assert merged.of("a", layer) is layer
    kept = merged.of("a", layer)
    assert kept is not layer
    assert merged.of("a", layer) is kept
    assert merged.used == SIZE
    np.testing.assert_allclose(kept.weight, layer.weight + 0.5 * layer.down @ layer.up, rtol=1e-6)


def test_the_merged_weights_of_an_earlier_version_are_never_used_again():
    merged, old, new = Merged(10 * SIZE), maps(), maps(1)
    for _ in range(3):
        merged.of("a", old)
    assert merged.of("a", new) is new
    assert merged.used == 0
    np.testing.assert_allclose(merged.of("a", new).weight, new.merged().weight)


def test_what_is_forgotten_takes_no_room():
    merged, layer = Merged(10 * SIZE), maps()
    for _ in range(3):
        merged.of("a", layer)
    merged.forget("a")
    merged.forget("unknown")
    assert merged.used == 0
    assert merged.of("a", layer) is layer


def test_a_layer_without_an_adapter_and_one_too_large_are_run_as_they_are():
    merged = Merged(SIZE - 1)
    bare = Maps(maps().weight, None)
    for _ in range(3):
        assert merged.of("a", bare) is bare
        layer = maps()
        assert merged.of("b", layer) is layer
    assert merged.used == 0


def test_the_hottest_have_the_room():
    merged, layers = Merged(3 * SIZE), {name: maps(seed) for seed, name in enumerate("abcdefghij")}
    draw = random.Random(0)
    for _ in range(4_000):  # three run a hundred times as often as the others
        hot = draw.random() < 0.95
        name = draw.choice("abc" if hot else "defghij")
        merged.of(name, layers[name])
    served = [merged.of(name, layers[name]) is not layers[name] for name in "abc"]
    assert sum(served) >= 2
    assert merged.used <= 3 * SIZE


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["run", "forget", "publish"])), max_size=80))
def test_whatever_happens_answers_are_those_of_the_layer_and_the_bytes_add_up(steps):
    merged, layers = Merged(2 * SIZE), {name: maps(seed) for seed, name in enumerate("abcdef")}
    x = np.ones((3, 6), np.float32)
    for number, (name, what) in enumerate(steps):
        if what == "publish":
            layers[name] = maps(100 + number)
        elif what == "forget":
            merged.forget(name)
        else:
            np.testing.assert_allclose(merged.of(name, layers[name])(x), layers[name](x), rtol=1e-5, atol=1e-5)
        assert merged.used <= 2 * SIZE
        assert merged.used % SIZE == 0


def test_maps_whose_product_overflows_are_not_merged():
    weight = np.zeros((1, 1), np.float32)
    maps = Maps(weight, None, np.full((1, 1), 1e20, np.float32), np.full((1, 1), 1e20, np.float32))
    merged = Merged(2**20)
    assert all(merged.of("a", maps) is maps for _ in range(5))
    assert merged.used == 0
