"""Decompositions of changes: within a limit of work, within memory, and the long ones one at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from service.errors import Fault, LimitExceeded, TemporaryReducedCapacity
from service.models.budget import Budget

MAX_WORK = 4_096**2 * 8_192  # ranks² · (in + out) of a decomposition, which is that of a whole 4096 by 4096 matrix
SHORT_WORK = 256**2 * 512  # milliseconds: nobody waits for these
FLOAT64_BYTES = 8
COPIES = 5  # of the factors, or of twice the matrix, that are there at once for each change


class Decomposing:
    """Lets a decomposition go on when it is small enough, there is memory, and no other long one is under way."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._long = threading.Lock()

    @contextmanager
    def allowed(
        self, ranks: int, in_features: int, out_features: int, pointer: str, changes: int = 1
    ) -> Iterator[None]:
        """Hold what it takes to decompose products of so many ranks; with min(in, out) of them, whole matrices.

        Args:
            changes: how many of them.

        Raises:
            LimitExceeded: when it would take too long.
            CapacityExhausted: when there is no memory for it.
            TemporaryReducedCapacity: while another long one is under way.
        """
        sides = in_features + out_features
        work = ranks**2 * sides  # of one
        if work > MAX_WORK:
            detail = (
                f"{ranks} ranks of a change of {out_features} by {in_features} take {ranks}² · {sides} = {work} "
                f"multiplications to decompose; at most {MAX_WORK} are done"
            )
            raise LimitExceeded(detail, Fault(pointer, detail), limit=MAX_WORK)
        with (
            self._budget.held(changes * COPIES * FLOAT64_BYTES * ranks * sides),
            nullcontext() if work <= SHORT_WORK else self._alone(),
        ):
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._long.acquire(blocking=False):
            detail = "another large change is being decomposed; try again when it is done"
            raise TemporaryReducedCapacity(detail, reason="decomposition-busy", limit=1)
        try:
            yield
        finally:
            self._long.release()
