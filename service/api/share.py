"""How much a key may have under way at a time, so that none holds up the others."""

from contextlib import AbstractContextManager

from service.errors import TooManyRequests


class Share(AbstractContextManager[None]):
    """Entered by each request of a key, for as long as it lasts; nothing is made anew for one, which would take longer.

    Raises:
        TooManyRequests: where the key has as many under way as it may.
    """

    def __init__(self, most: int) -> None:
        self.under_way = 0
        self._most = most

    def __enter__(self) -> None:
        if self.under_way >= self._most:
            raise TooManyRequests(
                f"this key has {self._most} requests under way, as many as it may (LORA_KEY_REQUESTS)",
                limit=self._most,
            )
        self.under_way += 1

    def __exit__(self, *_: object) -> None:
        self.under_way -= 1
