"""Keep merged weights of the layers that run most, within a number of bytes."""

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np

from service.lora.grouped import AnyMaps, fetched, quietly

ONCE = 1  # a layer that runs once is not worth a merge
MAX_COUNTED = 2**16


@dataclass(slots=True)
class _Kept:
    source: AnyMaps
    merged: AnyMaps
    nbytes: int
    uses: int


class Merged:
    """Merged maps by key, the hottest first.

    The one that has its place the longest gives way to a hotter one; where it is the hotter, it loses half of its uses
    and goes to the end of the line (the clock algorithm: Corbató, 1968).
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._uses: Counter[str] = Counter()  # of those that are not kept
        self._lock = threading.Lock()

    def of(self, key: str, maps: AnyMaps) -> AnyMaps:
        """What to run for a layer: the merged maps where they are kept, or have become worth it; else its own."""
        kept = self._kept.get(key)
        if kept is not None and kept.source is maps:
            kept.uses += 1
            return kept.merged
        if maps.down is None:
            return maps
        with self._lock:
            return self._considered(key, maps)

    def forget(self, key: str) -> None:
        """Drop what is kept under a key."""
        with self._lock:
            self._drop(key)
            self._uses.pop(key, None)

    def _considered(self, key: str, maps: AnyMaps) -> AnyMaps:
        self._drop(key)  # of an earlier version
        if len(self._uses) >= MAX_COUNTED:
            self._uses.clear()
        self._uses[key] += 1
        uses, nbytes = self._uses[key], sum(weight.nbytes for weight in maps.weights)
        if uses <= ONCE or nbytes > self.max_bytes:
            return maps
        while self.used + nbytes > self.max_bytes:
            oldest, kept = next(iter(self._kept.items()))
            if kept.uses > uses:
                kept.uses //= 2
                self._kept.move_to_end(oldest)
                return maps
            self._drop(oldest)
        del self._uses[key]
        merged: AnyMaps = quietly(maps.merged)
        if not all(
            np.isfinite(fetched(weight)).all() for weight in merged.weights
        ):  # though what it computes may be: B A x is, and B A is not
            return maps
        self._kept[key] = _Kept(maps, merged, nbytes, uses)
        self.used += nbytes
        return merged

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.used -= kept.nbytes
