"""How much each key may have under way at a time, so that none holds up the others."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.api.keys import Caller
from service.errors import TooManyRequests


class Shares:
    """Requests under way, by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def one_more(self, caller: Caller) -> Iterator[None]:
        """Count a request for as long as it lasts; where there are no keys there are no shares.

        Raises:
            TooManyRequests: where the key has as many under way as it may.
        """
        if not caller.name:
            yield
            return
        if self._under_way[caller.name] >= self._most:
            raise TooManyRequests(
                f"this key has {self._most} requests under way, as many as it may (LORA_KEY_REQUESTS)",
                limit=self._most,
            )
        self._under_way[caller.name] += 1
        try:
            yield
        finally:
            self._under_way[caller.name] -= 1
            if not self._under_way[caller.name]:
                del self._under_way[caller.name]
