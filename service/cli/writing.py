"""Outputs as a file, in the format that its name ends with."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.cli import csv_rows
from service.cli.reading import STDIN as STDOUT
from service.cli.statuses import Refused
from service.client import folder
from service.codecs import json, npy, safetensors

Outputs = NDArray[np.float32]

WRITERS: dict[str, Callable[[Outputs], bytes]] = {
    "npy": npy.dump,
    "csv": lambda outputs: csv_rows.written(outputs).encode(),
    "safetensors": lambda outputs: safetensors.dump({"outputs": outputs}),
    "json": lambda outputs: json.dumped(lambda written: {"outputs": written(outputs), "shape": outputs.shape}) + b"\n",
}


def writer(path: str, form: str | None = None) -> Callable[[Outputs], bytes]:
    """What makes the file of this name, or of this format.

    Raises:
        Refused: for an ending that is none of these.
    """
    form = form or (Path(path).suffix.removeprefix(".") if path != STDOUT else "npy")
    if form not in WRITERS:
        raise Refused(f"{path} ends with no format that is written here; those are {', '.join(WRITERS)}")
    return WRITERS[form]


def write(path: str, body: bytes) -> None:
    """Write a file as a whole, or to the standard output."""
    if path == STDOUT:
        sys.stdout.buffer.write(body)
        sys.stdout.flush()
    elif Path(path).exists() and not Path(path).is_file():  # a pipe, or /dev/null
        Path(path).write_bytes(body)
    else:
        folder.replace(Path(path), body)
