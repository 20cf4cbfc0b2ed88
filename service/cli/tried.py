"""What a sweep tries, as `--over` names it."""

from collections.abc import Sequence
from typing import Any

from service.cli.settings_given import value_of
from service.cli.statuses import Refused


def tried(given: Sequence[str]) -> dict[str, Any]:
    """The values of each setting: a list as in `rank=1,2,4`, a range as in `lr=0.001..0.1:5`.

    Raises:
        Refused: for what is neither.
    """
    return dict(map(_one, given))


def _one(text: str) -> tuple[str, Any]:
    name, equals, values = text.partition("=")
    if not name or not equals or not values:
        raise Refused(f"--over {text!r} is not understood; it is name=values, such as rank=1,2,4 or lr=0.001..0.1:5")
    low, dots, rest = values.partition("..")
    if not dots:
        return name, [value_of(value.strip()) for value in values.split(",")]
    high, _, count = rest.partition(":")
    try:
        return name, {"low": float(low), "high": float(high), "count": int(count)}
    except ValueError:
        raise Refused(
            f"--over {text!r} is not understood; a range is low..high:count, such as lr=0.001..0.1:5"
        ) from None
