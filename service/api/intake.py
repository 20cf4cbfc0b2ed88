"""How many bytes of bodies the service holds while their requests are under way."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from starlette.types import Message, Receive

from service.errors import CapacityExhausted, TemporaryReducedCapacity
from service.models.budget import Budget

SMALL_BYTES = 64 * 1024  # not worth counting: what a connection may have on its way in any case


class Intake:
    """Bodies under way, counted as they come."""

    def __init__(self, max_bytes: int) -> None:
        self._budget = Budget(max_bytes)

    def of(self, headers: Mapping[bytes, bytes], receive: Receive) -> AbstractContextManager[Receive]:
        """What to receive a request by, whose bytes count until it is over.

        What that gives raises TemporaryReducedCapacity when there is no room for more.
        """
        return nullcontext(receive) if is_small(headers) else self._counted(receive)

    @contextmanager
    def _counted(self, receive: Receive) -> Iterator[Receive]:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            size = len(message.get("body", b""))
            self._take(size)
            taken += size
            return message

        try:
            yield counted
        finally:
            self._budget.give(taken)

    def _take(self, size: int) -> None:
        try:
            self._budget.take(size)
        except CapacityExhausted:
            raise TemporaryReducedCapacity(
                f"bodies of requests under way take {self._budget.max_bytes} bytes, as many as they may "
                "(LORA_BODIES_MIB); try again later",
                reason="bodies-full",
                limit=self._budget.max_bytes,
            ) from None


def is_small(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a body is announced that is no more than a connection may have on its way."""
    if b"transfer-encoding" in headers:
        return False
    length = headers.get(b"content-length", b"0")
    return length.isdigit() and len(length) < 7 and int(length) <= SMALL_BYTES
