"""Check a frozen dataclass against the bounds that its own annotations carry."""

import json
import math
from collections.abc import Callable, Hashable, Iterator
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from service.errors import Fault, LimitExceeded, NonFinite, Validation

RULES: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": ("at least", lambda value, bound: value >= bound),
    "gt": ("above", lambda value, bound: value > bound),
    "le": ("at most", lambda value, bound: value <= bound),
    "lt": ("below", lambda value, bound: value < bound),
}
# The size of a layer is a limit in both directions; of everything else only what is too large is.
SIZES = frozenset({"in_features", "out_features"})

# How JSON spells what it has no numbers for.
NotFinite = Literal["NaN", "Infinity", "-Infinity"]
NOT_FINITE = get_args(NotFinite)


def shown(value: object) -> str:
    """The value as an error may quote it: JSON, at most 60 characters."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def cut(text: str, most: int) -> str:
    """The text, or as much of it as leaves room for a mark that there was more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def out_of_bounds(field: str, value: object, rule: str, bound: object) -> str:
    """One sentence with the field, the value and the bound it breaks."""
    return f"{field} is {shown(value)}; it must be {RULES[rule][0]} {bound}"


def refusal(field: str, rule: str) -> type[Validation]:
    """The error that breaking a rule of a field deserves."""
    return LimitExceeded if rule == "le" or field in SIZES else Validation


@cache
def _bounds(of: Hashable) -> tuple[tuple[str, str, Any], ...]:
    """(field, rule, bound) for every bound in the annotations of a class."""

    def walk(field: str, hint: Any) -> Iterator[tuple[str, str, Any]]:
        if get_origin(hint) is Annotated:
            for mark in get_args(hint)[1:]:
                if isinstance(mark, Ge | Gt | Le | Lt):
                    rule = type(mark).__name__.lower()
                    yield field, rule, getattr(mark, rule)
        else:
            for part in get_args(hint):
                yield from walk(field, part)

    hints = get_type_hints(of, include_extras=True)
    return tuple(bound for field, hint in hints.items() for bound in walk(field, hint))


def check(value: Any, within: str = "") -> None:
    """Raise for the first field that is not finite or breaks a bound of its annotation.

    Args:
        within: the JSON pointer to the object whose fields these are.

    Raises:
        NonFinite, LimitExceeded, Validation: with the field, its value and what is allowed.
    """
    for field, rule, bound in _bounds(type(value)):  # type: ignore[arg-type]  # a class is hashable
        given = getattr(value, field)
        for number in given if isinstance(given, tuple | list) else (given,):
            if not isinstance(number, int | float):
                continue
            if isinstance(number, float) and not math.isfinite(number):
                detail = f"{field} is {number}; it must be a finite number"
                raise NonFinite(detail, Fault(f"{within}/{field}", detail))
            if not RULES[rule][1](number, bound):
                detail = out_of_bounds(field, number, rule, bound)
                raise refusal(field, rule)(detail, Fault(f"{within}/{field}", detail))
