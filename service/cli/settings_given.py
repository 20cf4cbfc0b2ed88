"""Settings of a model, a training or a sweep, put together of a file, of options, and of `--set name=value`."""

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


def _put(settings: dict[str, Any], path: list[str], value: Any) -> None:
    """Set what stands at a path of names; what is on the way is made."""
    for name in path[:-1]:
        inner = settings.setdefault(name, {})
        if not isinstance(inner, dict):
            raise Refused(f"--set {'.'.join(path)}: {name} is {inner!r}, which has nothing within")
        settings = inner
    settings[path[-1]] = value
