"""CSV: text to numbers, with the line and the column of what is none."""

import csv
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.bounds import cut
from service.cli.statuses import Refused
from service.codecs.columns import place_of

SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Table:
    """Numbers (n, columns), and the names of the columns where the first line has them."""

    numbers: NDArray[np.float64]
    names: list[str]

    def place(self, column: str) -> int:
        """The place of a column that is given by its name or its number, from 1; -1 is the last.

        Raises:
            Refused: where there is none.
        """
        width = self.numbers.shape[1]
        place = place_of(column, self.names, width)
        if place is not None:
            return place
        known = cut(", ".join(self.names), 200) if self.names else "without names"
        raise Refused(f"there is no column {column!r}; there are {width}, {known}, and each has its number from 1 too")


def read(text: str) -> Table:
    """The rows of a file of CSV, whose values are separated by commas, semicolons or tabs.

    Raises:
        Refused: for what is no number, or a row of another length.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text), delimiter=max(SEPARATORS, key=first.count))
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise Refused(f"line {reader.line_num} of the CSV: {error}") from None
    named = bool(lines) and not any(map(_is_number, lines[0][1]))
    names = [cell.strip() for cell in lines.pop(0)[1]] if named else []
    if not lines:
        raise Refused("the CSV has no rows")
    width = len(names) or len(lines[0][1])
    numbers = np.empty((len(lines), width))
    for place, (line, cells) in enumerate(lines):
        numbers[place] = _numbers(line, cells, width, names)
    return Table(numbers, names)


def written(outputs: NDArray[np.float32]) -> str:
    """Rows as lines of CSV, in as few digits as give the same numbers again."""
    return "".join(",".join(map(str, row)) + "\n" for row in outputs.reshape(-1, outputs.shape[-1]))


def _numbers(line: int, cells: list[str], width: int, names: list[str]) -> list[float]:
    if len(cells) != width:
        raise Refused(f"line {line} of the CSV has {len(cells)} values; the first has {width}")
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        place = next(place for place, cell in enumerate(cells) if not _is_number(cell))
        name = f" ({names[place]})" if names else ""
        raise Refused(
            f"line {line}, column {place + 1}{name} of the CSV is {cut(cells[place], 40)!r}, no number"
        ) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
