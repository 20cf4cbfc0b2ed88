"""A bounded queue that runs what has the same key one after another, and some of what is alike together."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from service.errors import TemporaryReducedCapacity


class Entry(Protocol):
    """What waits for its turn; of one key, one runs at a time, and those of one group take one place."""

    @property
    def job_id(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def group(self) -> str: ...


E = TypeVar("E", bound=Entry)


class Queue(Generic[E]):
    """First come, first served, except that an entry waits while another one of its key runs or waits before it."""

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries
        self._waiting: dict[str, E] = {}
        self._groups: Counter[str] = Counter()
        self._running: set[str] = set()  # keys
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def must_have_room(self) -> None:
        """Raise TemporaryReducedCapacity when the queue is full."""
        if len(self._groups) >= self.max_entries:
            raise TemporaryReducedCapacity(
                f"{len(self._groups)} jobs are waiting, as many as may wait (LORA_QUEUE_MAX); try again later",
                reason="queue-full",
                limit=self.max_entries,
            )

    def put(self, entry: E) -> None:
        """Add an entry at the end; whether there is room is for the caller to ask."""
        with self._changed:
            self._waiting[entry.job_id] = entry
            self._groups[entry.group] += 1
            self._changed.notify()

    def take(self, timeout: float, joins: Callable[[Sequence[E], E], bool] = lambda taken, entry: False) -> list[E]:
        """The next entry whose key is free, and behind it those that join it; none when none came in time.

        They occupy their keys until `done`. `joins` is asked, for one entry after another, whether it goes along with
        those taken so far.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._closed and self._next() is not None, timeout):
                return []
            taken: list[E] = []
            passed = set(self._running)  # no entry overtakes another one of its key
            for entry in list(self._waiting.values()):
                if entry.key not in passed and (not taken or joins(taken, entry)):
                    self._out(entry.job_id)
                    taken.append(entry)
                passed.add(entry.key)
            self._running.update(entry.key for entry in taken)
            return taken

    def close(self) -> None:
        """Give out nothing more."""
        self._closed = True

    def until_idle(self, timeout: float) -> bool:
        """Wait until all that was taken is done; False when it was not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def put_back(self, entries: Sequence[E]) -> None:
        """Make entries that were taken the next ones again."""
        with self._changed:
            self._waiting = {**{entry.job_id: entry for entry in entries}, **self._waiting}
            self._groups.update(entry.group for entry in entries)
        self.done(entries)

    def done(self, entries: Sequence[E]) -> None:
        """Free the keys of entries that were taken."""
        with self._changed:
            self._running.difference_update(entry.key for entry in entries)
            self._changed.notify_all()

    def drop(self, job_id: str) -> E | None:
        """Take out an entry that still waits; None when it does not."""
        with self._changed:
            return self._out(job_id)

    def _out(self, job_id: str) -> E | None:
        entry = self._waiting.pop(job_id, None)
        if entry is not None:
            self._groups[entry.group] -= 1
            if not self._groups[entry.group]:
                del self._groups[entry.group]
        return entry

    def _next(self) -> E | None:
        return next((entry for entry in self._waiting.values() if entry.key not in self._running), None)
