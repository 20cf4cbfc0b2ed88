"""A frozen dataclass is held to the bounds in its own annotations, and a refusal says all there is to say."""

import json
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st

from service.bounds import SIZES, check, out_of_bounds, refusal, shown
from service.errors import LimitExceeded, NonFinite, Validation

Share = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class Settings:
    """One field of every kind that the service has."""

    count: Annotated[int, Ge(1), Le(10)] = 1
    rate: Annotated[float, Gt(0), Le(5)] = 1.0
    shares: tuple[Share, Share] | None = None
    maybe: Share | None = None
    in_features: Annotated[int, Ge(1), Le(10)] = 1
    word: Literal["one", "two"] = "one"
    free: float = math.inf
    marked: Annotated[str, "not a bound"] = "any"
    shared: ClassVar[int] = 10**9


RULES = [
    ("count", 0, "count is 0; it must be at least 1", Validation),
    ("count", 11, "count is 11; it must be at most 10", LimitExceeded),
    ("rate", 0, "rate is 0; it must be above 0", Validation),
    ("rate", 5.5, "rate is 5.5; it must be at most 5", LimitExceeded),
    ("shares", (0.5, 1.0), "shares is 1.0; it must be below 1", Validation),
    ("shares", (-0.1, 0.5), "shares is -0.1; it must be at least 0", Validation),
    ("maybe", 1, "maybe is 1; it must be below 1", Validation),
    ("in_features", 0, "in_features is 0; it must be at least 1", LimitExceeded),
    ("in_features", 11, "in_features is 11; it must be at most 10", LimitExceeded),
    ("rate", math.nan, "rate is nan; it must be a finite number", NonFinite),
    ("rate", -math.inf, "rate is -inf; it must be a finite number", NonFinite),
    ("shares", (0.0, math.inf), "shares is inf; it must be a finite number", NonFinite),
]


@pytest.mark.parametrize(("field", "value", "detail", "kind"), RULES)
def test_a_refusal_names_the_field_the_value_and_the_bound_it_breaks(field, value, detail, kind):
    with pytest.raises(Validation) as refused:
        check(Settings(**{field: value}))
    assert type(refused.value) is kind
    assert refused.value.detail == str(refused.value) == detail
    assert [(fault.pointer, fault.detail) for fault in refused.value.faults] == [(f"/{field}", detail)]


@pytest.mark.parametrize(("field", "value", "detail", "kind"), RULES)
def test_a_refusal_inside_another_object_points_into_it(field, value, detail, kind):
    with pytest.raises(kind) as refused:
        check(Settings(**{field: value}), within="/data")
    assert refused.value.faults[0].pointer == f"/data/{field}"


@given(
    st.integers(-3, 14),
    st.floats(-1, 7),
    st.none() | st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)),
    st.none() | st.floats(-0.5, 1.5),
)
def test_values_pass_exactly_when_every_one_is_within_its_bounds(count, rate, shares, maybe):
    within = 1 <= count <= 10 and 0 < rate <= 5 and all(0 <= share < 1 for share in (*(shares or ()), maybe or 0))
    if within:
        check(Settings(count, rate, shares, maybe))
    else:
        with pytest.raises(Validation):
            check(Settings(count, rate, shares, maybe))


def test_fields_without_bounds_take_anything():
    check(Settings(free=math.nan, word="three", marked="x" * 1_000))


@pytest.mark.parametrize("field", sorted(SIZES))
@pytest.mark.parametrize("rule", ["ge", "le"])
def test_a_layer_too_small_is_as_much_a_limit_as_one_too_large(field, rule):
    assert refusal(field, rule) is LimitExceeded


@pytest.mark.parametrize(("rule", "kind"), [("ge", Validation), ("gt", Validation), ("lt", Validation)])
def test_of_any_other_field_only_what_is_too_large_is_a_limit(rule, kind):
    assert refusal("epochs", rule) is kind
    assert refusal("epochs", "le") is LimitExceeded


@pytest.mark.parametrize(
    ("rule", "words"), [("ge", "at least 3"), ("gt", "above 3"), ("le", "at most 3"), ("lt", "below 3")]
)
def test_every_rule_has_its_words(rule, words):
    assert out_of_bounds("rank", 7, rule, 3) == f"rank is 7; it must be {words}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ("señal", '"señal"'),
        ([1, 2, 3], "a list of 3"),
        ((), "a list of 0"),
        ({"a": 1}, "an object"),
        ("x" * 100, '"' + "x" * 56 + "..."),
    ],
)
def test_a_value_is_shown_as_json_would_write_it(value, text):
    assert shown(value) == text


@given(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text())
def test_a_shown_value_is_at_most_60_characters_and_whole_when_it_is_short(value):
    text = shown(value)
    assert len(text) <= 60
    assert text.endswith("...") or json.loads(text) == value


def test_a_number_too_large_for_a_float_is_a_limit_like_any_other():
    with pytest.raises(LimitExceeded, match="it must be at most 10"):
        check(Settings(count=10**400))
