"""Columns of a table, as people name them."""

import re
from collections.abc import Sequence


def place_of(given: str, names: Sequence[str], width: int) -> int | None:
    """The place, from 0, of a column that is given by its name or its number, from 1; -1 is the last. None: no such."""
    if given in names:
        return names.index(given)
    if re.fullmatch(r"-?[0-9]{1,9}", given) and 1 <= abs(int(given)) <= width:
        return int(given) - 1 if int(given) > 0 else width + int(given)
    return None
