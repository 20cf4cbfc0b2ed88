"""Ids have one form, and each is greater than the one before."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ids import BASE_ID, JOB_ID, MODEL_ID, Mint, matches

THREADS = 8
PATTERNS = (MODEL_ID, JOB_ID, BASE_ID)
ULIDS = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=26, max_size=26)


def test_ids_rise_however_fast_they_are_made():
    mint = Mint("mdl")
    ids = [mint() for _ in range(5_000)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(("prefix", "pattern"), [("mdl", MODEL_ID), ("job", JOB_ID)])
def test_an_id_has_the_form_of_its_kind_and_of_no_other(prefix, pattern):
    made = Mint(prefix)()
    assert [matches(form, made) for form in PATTERNS] == [form == pattern for form in PATTERNS]


@given(ULIDS)
def test_every_ulid_makes_an_id_and_a_longer_or_shorter_one_does_not(ulid):
    assert matches(MODEL_ID, f"mdl_{ulid}")
    assert not matches(MODEL_ID, f"mdl_{ulid}0")
    assert not matches(MODEL_ID, f"mdl_{ulid[1:]}")


@pytest.mark.parametrize("letter", "ILOUa-é ")
def test_letters_that_a_ulid_does_not_have_are_refused(letter):
    assert not matches(MODEL_ID, f"mdl_{letter * 26}")


@pytest.mark.parametrize("around", ["{}\n", "\n{}", " {}", "{} ", "{}\0", "x{}", "../{}"])
def test_nothing_may_stand_around_an_id(around):
    made = Mint("job")()
    assert matches(JOB_ID, made)
    assert not matches(JOB_ID, around.format(made))


@pytest.mark.parametrize(
    ("text", "is_one"), [("base_" + "0a" * 32, True), ("base_" + "0A" * 32, False), ("base_" + "0a" * 31, False)]
)
def test_a_base_is_named_by_64_lower_case_hexadecimal_digits(text, is_one):
    assert matches(BASE_ID, text) is is_one


def test_threads_that_share_a_mint_never_get_the_same_id():
    mint = Mint("mdl")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads interrupt one another wherever they can
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            together = Barrier(THREADS)
            made = list(threads.map(lambda _: [together.wait(), *(mint() for _ in range(5_000))][1:], range(THREADS)))
    finally:
        sys.setswitchinterval(interval)
    assert len({name for some in made for name in some}) == 5_000 * THREADS
    assert all(some == sorted(some) for some in made)
