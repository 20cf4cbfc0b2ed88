"""When a batch closes: a pure function of what has come and what time it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """How long a batch may gather, and how large it may become.

    It gathers only while more is likely to come: as many requests as the batch before it had, where that one has just
    ended. So a request that finds nobody else never waits.
    """

    max_rows: int = 1_024
    max_bytes: int = 2**24
    wait_seconds: float = 0.001

    def expected(self, last_requests: int, last_ended: float, now: float) -> int:
        """How many requests are likely to come: after a pause of more than the wait, just the one that came."""
        return last_requests if now - last_ended <= self.wait_seconds else 1

    def seconds_left(
        self, *, opened: float, rows: int, requests: int, expected: int, until: float, now: float
    ) -> float:
        """How long the batch may go on gathering; 0 or less when it is to be closed.

        Args:
            opened: when the first of its requests came.
            until: when the first of its deadlines passes.
        """
        if rows >= self.max_rows or requests >= expected:
            return 0.0
        return min(opened + self.wait_seconds, until) - now

    def holds(self, rows: int, nbytes: int) -> bool:
        """Whether a batch of this size may be computed in one pass."""
        return rows <= self.max_rows and nbytes <= self.max_bytes
