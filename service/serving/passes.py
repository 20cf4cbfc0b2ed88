"""One pass over a frozen layer for many requests: rows are put in the order of their adapters, and back."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from service.lora.grouped import Maps, fetched, grouped, placed, quietly

Rows = NDArray[np.float32]


def one_pass(some: Sequence[tuple[Maps, Rows]]) -> list[Rows]:
    """The outputs (n, out) for each request's rows (n, in), in the order of the requests.

    All maps stand on one frozen weight.
    """
    of_maps: dict[int, list[int]] = {}
    for at, (maps, _) in enumerate(some):
        of_maps.setdefault(id(maps), []).append(at)
    order = [at for places in of_maps.values() for at in places]
    lengths = [len(x) for _, x in some]
    members = [(some[places[0]][0], sum(lengths[at] for at in places)) for places in of_maps.values()]
    x = some[0][1] if len(some) == 1 else np.concatenate([some[at][1] for at in order])
    y = fetched(quietly(grouped, placed(x, members[0][0].weight), members))
    ends = dict(zip(order, accumulate(lengths[at] for at in order), strict=True))
    return [y[ends[at] - length : ends[at]] for at, length in enumerate(lengths)]
