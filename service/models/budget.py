"""Bytes that may be held, counted before they are taken."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import CapacityExhausted


class Budget:
    """A number of bytes, of which whoever holds tensors takes a part and gives it back."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self._lock = threading.RLock()  # a finalizer may give back in the midst of a take

    def take(self, size: int) -> None:
        """Count so many bytes as held.

        Raises:
            CapacityExhausted: when that many are not left.
        """
        with self._lock:
            if self.used + size > self.max_bytes:
                raise CapacityExhausted(
                    f"{size} bytes are needed, and {self.used} of {self.max_bytes} are in use; "
                    "delete models or data sets, or raise LORA_MEMORY_MIB",
                    bytes_needed=size,
                    in_use=self.used,
                    limit=self.max_bytes,
                )
            self.used += size

    def give(self, size: int) -> None:
        """Count so many bytes as free again."""
        with self._lock:
            self.used -= size

    @contextmanager
    def kept(self, size: int) -> Iterator[None]:
        """Take bytes for good, unless what follows fails; CapacityExhausted as for `take`."""
        self.take(size)
        try:
            yield
        except BaseException:
            self.give(size)
            raise

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Hold bytes for a while; CapacityExhausted as for `take`."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)
