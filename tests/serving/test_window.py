"""A batch closes on rows, on requests, on time or on a deadline, and at once where nobody else is likely to come."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from service.serving.window import Window

WINDOW = Window(max_rows=100, max_bytes=1_000, max_products=5_000, wait_seconds=0.5)
OPEN = {"opened": 10.0, "rows": 1, "requests": 1, "expected": 4, "until": inf, "now": 10.25}


def left(**changed: float) -> float:
    return WINDOW.seconds_left(**{**OPEN, **changed})


def test_it_stays_open_for_what_is_left_of_the_wait():
    assert left() == 0.25
    assert left(now=10.5) == 0


def test_it_closes_on_rows_and_on_as_many_requests_as_were_expected():
    assert left(rows=100) == 0
    assert left(requests=4) == 0


def test_it_closes_when_the_first_deadline_passes():
    assert left(until=10.375) == 0.125
    assert left(until=9.0) < 0


@given(st.integers(1, 100), st.floats(0, 1e6), st.floats(0, 10))
def test_whoever_finds_nobody_else_never_waits(last, ended, pause):
    now = ended + pause
    expected = WINDOW.expected(last, ended, now)
    assert expected == (last if now - ended <= WINDOW.wait_seconds else 1)
    assert left(requests=1, expected=1) == 0


@given(st.integers(1, 65_536), st.integers(1, 65_536))
def test_a_pass_is_bounded_in_rows_bytes_and_products_but_for_one_row(in_features, out_features):
    rows = WINDOW.most_rows(in_features, out_features)
    assert 1 <= rows <= 100
    for more, fits in ((rows, True), (rows + 1, False)):
        within = 4 * more * (in_features + out_features) <= 1_000 and more * in_features * out_features <= 5_000
        assert rows in (1, 100) or within == fits
