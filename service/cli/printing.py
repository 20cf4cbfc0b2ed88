"""Results on the standard output: tables for a reader, lines with tabs for a program, JSON for whoever asks for it."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.columns import STATES, Column
from service.client.record import sparks

# What is shown as its course, and not number by number.
COURSES = {"losses", "validation_losses", "accuracies", "validation_accuracies"}


def for_a_reader() -> bool:
    """Whether the standard output is a terminal."""
    return sys.stdout.isatty()


def document(value: Any) -> None:
    """One JSON document; what the service answered is written as it came."""
    text = orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    print(text.decode())


def line_of_json(value: Any) -> None:
    """One JSON document on one line, at once."""
    print(orjson.dumps(value, default=_plain).decode(), flush=True)


def listed(things: Iterable[Any], columns: tuple[Column, ...], *, as_json: bool, ids_only: bool = False) -> None:
    """Things one below another."""
    if as_json:
        document(list(things))
    elif ids_only:
        _lines([thing.id] for thing in things)
    elif for_a_reader():
        Console().print(table(things, columns))
    else:
        _lines([column.told(thing) for column in columns] for thing in things)


def table(things: Iterable[Any], columns: tuple[Column, ...], title: str | None = None) -> Table:
    """Things as a table, in which the first column, their id, is never cut."""
    made = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    for place, column in enumerate(columns):
        made.add_column(column.heading, justify="right" if column.right else "left", no_wrap=place == 0)
    for thing in things:
        made.add_row(*(_cell(column, thing) for column in columns))
    return made


def record(thing: Any, *, as_json: bool, id_only: bool = False) -> None:
    """One thing with all its fields."""
    if as_json:
        document(thing)
    elif id_only:
        print(thing.id)
    elif for_a_reader():
        Console().print(_as_grid(_fields(thing)))
    else:
        _lines(_fields(thing))


def done(said: str, **facts: Any) -> None:
    """That something was done: the sentence, or with `as_json` the facts."""
    if facts.pop("as_json"):
        document(facts)
    else:
        print(said)


def _cell(column: Column, thing: Any) -> Text:
    text = column.shown(thing) if column.shown else _text(column.told(thing))
    return Text(text, column.styled(thing) if column.styled else "", overflow="fold")


def _as_grid(fields: Iterable[tuple[str, Any]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields:
        if name in COURSES and value:
            value = f"{value[0]:.4g} {sparks(value)} {value[-1]:.4g}"
        if value is not None:
            grid.add_row(name, Text(_text(value), STATES.get(str(value), "")))
    return grid


def _fields(thing: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values, those of a value within a value by both names: `parameters.trainable`."""
    values: Mapping[str, Any] = thing if isinstance(thing, dict) else thing.model_dump(mode="json")
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _fields(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def _lines(rows: Iterable[Iterable[Any]]) -> None:
    for row in rows:
        print("\t".join(map(_text, row)))


def _text(value: Any) -> str:
    """A value as text without tabs and ends of lines, none as nothing; truth and nested ones as in JSON."""
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return orjson.dumps(value).decode()
    return str(value)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json")
