"""Choose the points by which a long curve is drawn: the lowest and the highest of each stretch."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def epochs_of(curves: Sequence[Sequence[float]], most: int) -> list[int]:
    """The epochs, counted from 1, that curves of one length are thinned to: at most `most`, all where that suffices.

    Those are the last epoch, the first, and of each curve the lowest and the highest number, as far as so many points
    go; a number that is not finite is kept before others, so that no gap is drawn over.
    """
    length = len(curves[0]) if curves else 0
    if length <= most:
        return list(range(1, length + 1))
    kept = {length - 1, 0} if most > 1 else set(range(length - most, length))
    stretches = max(0, most - 2) // (2 * len(curves))
    for curve in curves if stretches else ():
        kept |= _extremes(np.asarray(curve, np.float64), stretches)
    return [place + 1 for place in sorted(kept)]


def _extremes(curve: np.ndarray, stretches: int) -> set[int]:
    """The places of the lowest and of the highest number in each of so many stretches of a curve."""
    bounds = np.linspace(0, len(curve), stretches + 1).astype(int)
    return {int(first + pick(curve[first:end])) for first, end in pairwise(bounds) for pick in (np.argmin, np.argmax)}
