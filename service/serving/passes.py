"""One pass over a frozen layer for many requests: rows are put in the order of their adapters, and back."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from service.lora.grouped import Maps, fetched, grouped, placed, quietly

Rows = NDArray[np.float32]


def one_pass(some: Sequence[tuple[Maps, Rows]]) -> list[Rows]:
    """The outputs (n, out) for each request's rows (n, in), in the order of the requests.

    All maps stand on one frozen weight.
    """
    order = sorted(range(len(some)), key=lambda at: id(some[at][0]))
    members = [
        (some[places[0]][0], sum(len(some[at][1]) for at in places))
        for _, line in groupby(order, key=lambda at: id(some[at][0]))
        for places in [list(line)]
    ]
    x = some[0][1] if len(some) == 1 else np.concatenate([some[at][1] for at in order])
    y = fetched(quietly(grouped, placed(x, members[0][0].weight), members))
    ends = np.cumsum([len(some[at][1]) for at in order])
    outputs = dict(zip(order, np.split(y, ends[:-1]), strict=True))
    return [outputs[at] for at in range(len(some))]
