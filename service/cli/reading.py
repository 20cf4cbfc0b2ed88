"""Files and the standard input: what format they are in, and the arrays that they hold."""

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.cli import csv_rows
from service.cli.statuses import Refused
from service.codecs import json, safetensors
from service.errors import ServiceError

STDIN = "-"
# How the inputs of a forward are called, where a file has names; one that it has written can be its input again.
TENSORS = ("inputs", "x", "outputs")
NUMBERS = "biuf"  # kinds of dtypes
Arrays = dict[str, NDArray[Any]]


class Rows(NamedTuple):
    """Inputs x (n, in), targets y (n, out) or (n,), and perhaps weights (n,)."""

    x: NDArray[Any]
    y: NDArray[Any]
    weight: NDArray[Any] | None


def content(path: str) -> bytes:
    """The bytes of a file, or of the standard input."""
    return sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()


def inputs(path: str, form: str | None = None) -> NDArray[Any]:
    """The one array of a file, or the one it calls `inputs` or `x`.

    Raises:
        Refused: for a file that cannot be read, or has several.
    """
    arrays = _arrays(path, form)
    if not arrays:
        raise Refused(f"{path} holds no array; the inputs are a list of rows, or an object that has them as `inputs`")
    named = [arrays[name] for name in TENSORS if name in arrays] or list(arrays.values())
    if len(arrays) > 1 and not any(name in arrays for name in TENSORS):
        raise Refused(f"{path} has {', '.join(sorted(arrays))}; name the inputs `inputs`")
    return named[0]


def rows(path: str, form: str | None = None, targets: list[str] | None = None) -> Rows:
    """The arrays `x`, `y` and perhaps `weight` of a file; of CSV the `targets` are the columns of y.

    Raises:
        Refused: for a file that cannot be read, or has others.
    """
    body = content(path)
    form = form or sniffed(body)
    if form == "csv":
        return _columns(path, body, targets or [])
    if targets:
        raise Refused(f"{path} is {form}; --target names columns of CSV, and here y is an array of its own")
    arrays = _decoded(path, body, form)
    if not {"x", "y"} <= set(arrays) <= {"x", "y", "weight"}:
        held = ", ".join(sorted(filter(None, arrays))) or "one array without a name"
        raise Refused(f"{path} holds {held}; rows to train on are arrays x and y, and perhaps weight")
    return Rows(arrays["x"], arrays["y"], arrays.get("weight"))


def sniffed(body: bytes) -> str:
    """The format that some bytes are in, by how they begin; what begins like none is CSV."""
    if body.startswith(b"\x93NUMPY"):
        return "npy"
    if body.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "npz"
    if body[8:9] == b"{" and int.from_bytes(body[:8], "little") <= len(body) - 8:
        return "safetensors"
    return "json" if body.lstrip()[:1] in (b"[", b"{") else "csv"


def _arrays(path: str, form: str | None) -> Arrays:
    body = content(path)
    return _decoded(path, body, form or sniffed(body))


def _decoded(path: str, body: bytes, form: str) -> Arrays:
    if form not in FORMATS:
        raise Refused(f"{form!r} is no format that is read here; those are {', '.join(FORMATS)}")
    try:
        arrays = FORMATS[form](body)
    except Refused as refused:
        raise Refused(f"{path}: {refused}") from None
    except ServiceError as error:
        raise Refused(f"{path}: {error.detail}") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:  # of numpy
        raise Refused(f"{path} cannot be read as {form}: {error}") from None
    for name, array in arrays.items():
        if array.dtype.kind not in NUMBERS:
            raise Refused(f"{path}: {name or 'the array'} is of {array.dtype}, and not of numbers")
    return arrays


def _npy(body: bytes) -> Arrays:
    return {"": np.load(io.BytesIO(body), allow_pickle=False)}


def _npz(body: bytes) -> Arrays:
    with np.load(io.BytesIO(body), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _safetensors(body: bytes) -> Arrays:
    return dict(safetensors.load(body, integers=("y",)))


def _csv(body: bytes) -> Arrays:
    return {"": csv_rows.read(_text(body)).numbers}


def _json(body: bytes) -> Arrays:
    """Nested lists, or an object of such."""
    value = json.parse(body)
    named = value if isinstance(value, dict) else {"": value}
    return {name: json.numbers(each, name or "the array") for name, each in named.items() if isinstance(each, list)}


FORMATS: dict[str, Callable[[bytes], Arrays]] = {
    "npy": _npy,
    "npz": _npz,
    "csv": _csv,
    "safetensors": _safetensors,
    "json": _json,
}


def _columns(path: str, body: bytes, targets: list[str]) -> Rows:
    """The columns of CSV that are named as targets as y, all others as x."""
    try:
        table = csv_rows.read(_text(body))
        places = [table.place(name) for name in targets]
    except Refused as refused:
        raise Refused(f"{path}: {refused}") from None
    if not places:
        raise Refused(f"{path} is CSV: say which columns are the targets, as in --target label or --target -1")
    others = [place for place in range(table.numbers.shape[1]) if place not in places]
    return Rows(table.numbers[:, others], table.numbers[:, places], None)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"it is no text in UTF-8, nor any other format that is read here (byte {error.start})") from None
