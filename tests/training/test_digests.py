"""The same data has the same name, and other data another."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.digests import chained, digest_of, digest_of_rows
from service.training.sources import Digits, Inline, Random, Stored, Teacher

X = np.arange(12, dtype=np.float32).reshape(3, 4)
Y = np.ones((3, 2), np.float32)
NAME = "0" * 64


def test_rows_are_named_by_their_names_types_shapes_and_bytes() -> None:
    named = {
        digest_of_rows(rows)
        for rows in (
            {"x": X, "y": Y},
            {"x": X + 1, "y": Y},
            {"x": X.reshape(4, 3), "y": Y},
            {"x": X.astype(np.float64), "y": Y},
            {"x": X.view(np.int32), "y": Y},
            {"x": X, "weight": Y},
            {"x": Y, "y": X},
            {"x": X},
        )
    }
    assert len(named) == 8


def test_neither_the_order_of_the_names_nor_that_in_memory_counts() -> None:
    assert digest_of_rows({"x": X, "y": Y}) == digest_of_rows({"y": Y, "x": np.asfortranarray(X)})


def test_data_that_is_drawn_is_named_by_its_words() -> None:
    drawn = [
        Random(seed=1),
        Random(seed=2),
        Random(n_samples=9, seed=1),
        Teacher(seed=1),
        Digits(),
        Digits(split="all"),
    ]
    assert len({digest_of(source) for source in drawn}) == len(drawn)
    assert digest_of(Random(seed=1)) == digest_of(replace(Random(), seed=1))
    assert digest_of(Digits()) == "89f6b96b1926528e29641f75727a77158a7d3107bd15f8f7eee9834d9d46e3f1"  # for good


@pytest.mark.parametrize("digest", [None, NAME])
def test_data_that_was_sent_has_the_name_it_was_given(digest: str | None) -> None:
    assert digest_of(Inline(n_samples=1, targets="numbers", digest=digest)) == digest
    stored = Stored(id="d", n_samples=1, targets="numbers", in_features=1, out_features=1, digest=digest)
    assert digest_of(stored) == digest


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.lists(st.sampled_from("abc"), min_size=1, max_size=4)
)
def test_a_chain_is_named_by_its_links_in_order(one: list[str], other: list[str]) -> None:
    def chain(of: list[str]) -> str | None:
        name: str | None = of[0]
        for more in of[1:]:
            name = chained(name, more)
        return name

    assert (chain(one) == chain(other)) == (one == other)


def test_what_is_behind_rows_without_a_name_has_none() -> None:
    assert chained(None, NAME) is chained(NAME, None) is None
