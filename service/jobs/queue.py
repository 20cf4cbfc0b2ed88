"""A bounded queue that runs what has the same key one after another."""

import threading
from typing import Generic, Protocol, TypeVar

from service.errors import TemporaryReducedCapacity


class Entry(Protocol):
    """What waits for its turn; of one key, one runs at a time."""

    @property
    def job_id(self) -> str: ...

    @property
    def key(self) -> str: ...


E = TypeVar("E", bound=Entry)


class Queue(Generic[E]):
    """First come, first served, except that an entry waits while another one of its key runs."""

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries
        self._waiting: dict[str, E] = {}
        self._running: set[str] = set()  # keys
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def must_have_room(self) -> None:
        """Raise TemporaryReducedCapacity when the queue is full."""
        if len(self._waiting) >= self.max_entries:
            raise TemporaryReducedCapacity(
                f"{len(self._waiting)} jobs are waiting, as many as may wait (LORA_QUEUE_MAX); try again later",
                limit=self.max_entries,
            )

    def put(self, entry: E) -> None:
        """Add an entry at the end; whether there is room is for the caller to ask."""
        with self._changed:
            self._waiting[entry.job_id] = entry
            self._changed.notify()

    def take(self, timeout: float) -> E | None:
        """The next entry whose key is free, which it then occupies until `done`; None when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._next() is not None, timeout)
            entry = self._next()
            if entry is not None:
                del self._waiting[entry.job_id]
                self._running.add(entry.key)
            return entry

    def put_back(self, entry: E) -> None:
        """Make an entry that was taken the next one again."""
        with self._changed:
            self._waiting = {entry.job_id: entry, **self._waiting}
        self.done(entry)

    def done(self, entry: E) -> None:
        """Free the key of an entry that was taken."""
        with self._changed:
            self._running.discard(entry.key)
            self._changed.notify_all()

    def drop(self, job_id: str) -> E | None:
        """Take out an entry that still waits; None when it does not."""
        with self._changed:
            return self._waiting.pop(job_id, None)

    def _next(self) -> E | None:
        return next((entry for entry in self._waiting.values() if entry.key not in self._running), None)
