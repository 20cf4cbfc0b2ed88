"""How much each key may have under way at a time, so that none holds up the others."""

from collections import Counter
from contextlib import AbstractContextManager, nullcontext

from service.api.keys import Caller
from service.errors import TooManyRequests


class Shares:
    """Requests under way, by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()

    def one_more(self, caller: Caller) -> AbstractContextManager[None]:
        """Count a request for as long as it lasts; where there are no keys there are no shares.

        Raises:
            TooManyRequests: where the key has as many under way as it may.
        """
        if not caller.name:
            return nullcontext()
        if self._under_way[caller.name] >= self._most:
            raise TooManyRequests(
                f"this key has {self._most} requests under way, as many as it may (LORA_KEY_REQUESTS)",
                limit=self._most,
            )
        return _Counted(self._under_way, caller.name)


class _Counted(AbstractContextManager[None]):
    """One request more of a key; not a generator, which would take longer than all else at the door."""

    __slots__ = ("_name", "_under_way")

    def __init__(self, under_way: Counter[str], name: str) -> None:
        self._under_way, self._name = under_way, name

    def __enter__(self) -> None:
        self._under_way[self._name] += 1

    def __exit__(self, *_: object) -> None:
        self._under_way[self._name] -= 1
