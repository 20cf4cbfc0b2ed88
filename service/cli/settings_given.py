"""Settings of a model, a training or a sweep: of a file, of options, of `--set name=value` and `--over name=values`."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from service.cli.reading import content
from service.cli.statuses import Refused


def gathered(file: str | None, options: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """The settings: what a file says, over it the options that were given, and over both what was set.

    Raises:
        Refused: for a file that holds no settings, or what has no name.
    """
    settings = {} if file is None else loaded(file)
    if not isinstance(settings, dict):
        raise Refused(f"{file} holds a list; settings have names")
    settings |= {name: value for name, value in options.items() if value is not None}
    for each in sets:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise Refused(f"--set {each!r} is not understood; it is name=value, such as weight_decay=0.1")
        _put(settings, name.split("."), value_of(value))
    return settings


def fields(settings: dict[str, Any], *taken: str) -> dict[str, Any]:
    """The settings, none of which is `self` or has one of the names that are taken by the client's own arguments.

    Raises:
        Refused: for one that has.
    """
    if odd := sorted(settings.keys() & {"self", *taken}):
        raise Refused(f"--set {odd[0]} names no field of what is asked for")
    return settings


def loaded(file: str) -> Any:
    """What a file of JSON or TOML holds.

    Raises:
        Refused: for one that cannot be read.
    """
    try:
        text = content(file).decode()
        return tomllib.loads(text) if Path(file).suffix == ".toml" else orjson.loads(text)
    except ValueError as error:
        raise Refused(f"{file} is neither JSON nor, by its name, TOML: {error}") from None


def value_of(text: str) -> Any:
    """What a text stands for: a value of JSON, or itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def tried(given: Sequence[str]) -> dict[str, Any]:
    """The values of each setting: a list as in `rank=1,2,4`, a range as in `lr=0.001..0.1:5`.

    Raises:
        Refused: for what is neither.
    """
    return dict(map(_one, given))


def _put(settings: dict[str, Any], path: list[str], value: Any) -> None:
    """Set what stands at a path of names; what is on the way is made."""
    for name in path[:-1]:
        inner = settings.setdefault(name, {})
        if not isinstance(inner, dict):
            raise Refused(f"--set {'.'.join(path)}: {name} is {inner!r}, which has nothing within")
        settings = inner
    settings[path[-1]] = value


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
