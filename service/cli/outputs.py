"""Outputs of a forward for whoever looks on: a table, lines with tabs, or JSON."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from service.cli import printing
from service.codecs import json

SHOWN_ROWS, SHOWN_COLUMNS = 20, 12


def show(outputs: NDArray[np.float32], model_id: str, *, as_json: bool) -> None:
    """Print the outputs: on a terminal as many as can be read, elsewhere all of them."""
    rows = outputs.reshape(-1, outputs.shape[-1])
    if as_json:
        print(json.dumped(lambda written: {**_facts(outputs, model_id), "outputs": written(outputs)}).decode())
    elif printing.for_a_reader():
        Console().print(_table(rows))
        if len(rows) > SHOWN_ROWS or rows.shape[1] > SHOWN_COLUMNS:
            Console(stderr=True).print(f"of {rows.shape[0]} × {rows.shape[1]} outputs; -o FILE writes all", style="dim")
    else:
        for row in rows:
            print("\t".join(map(str, row)))


def told(path: str, outputs: NDArray[np.float32], model_id: str, *, as_json: bool) -> None:
    """Say where the outputs have been written."""
    facts = _facts(outputs, model_id)
    printing.done(f"{path} has the outputs of shape {facts['shape']}", as_json=as_json, file=path, **facts)


def _facts(outputs: NDArray[np.float32], model_id: str) -> dict[str, Any]:
    return {"model_id": model_id, "shape": list(outputs.shape)}


def _table(rows: NDArray[np.float32]) -> Table:
    """The first rows and columns; the greatest output of each row stands out."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("row", justify="right", style="dim")
    for column in range(min(rows.shape[1], SHOWN_COLUMNS)):
        table.add_column(str(column), justify="right")
    for place, row in enumerate(rows[:SHOWN_ROWS]):
        greatest = int(row.argmax()) if row.size > 1 else None
        cells = [f"[bold]{x:.4f}[/]" if column == greatest else f"{x:.4f}" for column, x in enumerate(row)]
        table.add_row(str(place), *cells[:SHOWN_COLUMNS])
    return table
