"""One pass over a frozen layer for many requests: rows are put in the order of their adapters, and back."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from service.lora.grouped import AnyMaps, fetched, grouped, placed, quietly

Rows = NDArray[np.float32]


def one_pass(some: Sequence[tuple[AnyMaps, Rows]]) -> list[Rows]:
    """The outputs (n, out) for each request's rows (n, in), in the order of the requests.

    All maps stand on one frozen weight; or all are one chain.
    """
    of_maps: dict[int, list[int]] = {}
    for at, (maps, _) in enumerate(some):
        of_maps.setdefault(id(maps), []).append(at)
    order = [at for places in of_maps.values() for at in places]
    lengths = [len(x) for _, x in some]
    members = [(some[places[0]][0], sum(lengths[at] for at in places)) for places in of_maps.values()]
    x = some[0][1] if len(some) == 1 else np.concatenate([some[at][1] for at in order])
    first = members[0][0]
    x = placed(x, first.weight)
    y = fetched(quietly(first, x) if len(members) == 1 else quietly(grouped, x, members))
    ends = dict(zip(order, accumulate(lengths[at] for at in order), strict=True))
    return [y[ends[at] - length : ends[at]] for at, length in enumerate(lengths)]
