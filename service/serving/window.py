"""When a batch closes: a pure function of what has come and what time it is."""

from dataclasses import dataclass

from service.lora.spec import FLOAT32_BYTES


@dataclass(frozen=True)
class Window:
    """How long a batch may gather, and how large it may become.

    It gathers only while more is likely to come: as many requests as the batch before it had, where that one has just
    ended. So a request that finds nobody else never waits.
    """

    max_rows: int = 1_024
    max_bytes: int = 2**24  # of the rows and their outputs
    max_products: int = 2**32  # multiplications: some tenths of a second
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

    def most_rows(self, in_features: int, out_features: int) -> int:
        """How many rows of a layer one pass may have: others wait for it to end."""
        by_bytes = self.max_bytes // (FLOAT32_BYTES * (in_features + out_features))
        by_products = self.max_products // (in_features * out_features)
        return max(1, min(self.max_rows, by_bytes, by_products))
