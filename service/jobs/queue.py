"""A bounded queue that runs what has the same key one after another, some of what is alike together, and is fair."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from service.errors import TemporaryReducedCapacity, TooManyRequests


class Entry(Protocol):
    """What waits for its turn; of one key, one runs at a time, and those of one group take one place.

    Owners take turns, however much each of them has waiting.
    """

    @property
    def job_id(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def owner(self) -> str: ...


E = TypeVar("E", bound=Entry)


class Queue(Generic[E]):
    """The first of the owner who has waited longest for a turn, unless one of its key runs or waits before it.

    Args:
        max_entries: that may wait.
        max_owned: that may wait of one owner with a name; those without one are not told apart.
    """

    def __init__(self, max_entries: int, max_owned: int | None = None) -> None:
        self.max_entries = max_entries
        self.max_owned = max_owned or max_entries
        self._waiting: dict[str, E] = {}
        self._groups: Counter[tuple[str, str]] = Counter()  # by owner
        self._turns: dict[str, int] = {}  # the number of each owner's last turn
        self._running: set[str] = set()  # keys of what was taken
        self._away: dict[str, E] = {}  # entries that run elsewhere
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def must_have_room(self, owner: str = "") -> None:
        """Raise TemporaryReducedCapacity when the queue is full, TooManyRequests when its owner has filled a share."""
        with self._changed:
            waiting, owned = len(self._groups), sum(owner == other for other, _ in self._groups)
        if waiting >= self.max_entries:
            raise TemporaryReducedCapacity(
                f"{waiting} jobs are waiting, as many as may wait (LORA_QUEUE_MAX); try again later",
                reason="queue-full",
                limit=self.max_entries,
            )
        if owner and owned >= self.max_owned:
            raise TooManyRequests(
                f"{self.max_owned} jobs of this key are waiting, as many as may (LORA_KEY_QUEUE_MAX); try again later",
                limit=self.max_owned,
            )

    def put(self, entry: E, *, first: bool = False) -> None:
        """Add an entry at the end, or before all others; whether there is room is for the caller to ask."""
        with self._changed:
            if first:
                self._waiting = {entry.job_id: entry, **self._waiting}
            else:
                self._waiting[entry.job_id] = entry
            self._groups[entry.owner, entry.group] += 1
            self._changed.notify()

    def take(self, timeout: float, joins: Callable[[Sequence[E], E], bool] = lambda taken, entry: False) -> list[E]:
        """The next entry whose key is free, and those that join it; none when none came in time.

        They occupy their keys until `done`. `joins` is asked, for one entry after another, whether it goes along with
        those taken so far.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._closed and self._next() is not None, timeout):
                return []
            first = self._next()
            assert first is not None, "waited for"
            self._out(first.job_id)
            taken, passed = [first], {first.key, *self._busy}  # no entry overtakes another one of its key
            for entry in list(self._waiting.values()):
                if entry.key not in passed and joins(taken, entry):
                    self._out(entry.job_id)
                    taken.append(entry)
                passed.add(entry.key)
            self._running.update(entry.key for entry in taken)
            self._turns[first.owner] = max(self._turns.values(), default=0) + 1
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
            self._groups.update((entry.owner, entry.group) for entry in entries)
        self.done(entries)

    def done(self, entries: Sequence[E]) -> None:
        """Free the keys of entries that were taken."""
        with self._changed:
            self._running.difference_update(entry.key for entry in entries)
            self._changed.notify_all()

    def drop(self, job_id: str) -> E | None:
        """Take out an entry that still waits, or runs elsewhere; None when it does neither."""
        with self._changed:
            return self._out(job_id) or self._returned(job_id)

    @property
    def away(self) -> list[E]:
        """The entries that run elsewhere."""
        with self._changed:
            return list(self._away.values())

    def sent(self, job_id: str) -> E | None:
        """An entry that waits runs elsewhere: its key is not free until it is dropped; None when it does not wait."""
        with self._changed:
            entry = self._out(job_id)
            if entry is not None:
                self._away[job_id] = entry
            return entry

    def yielded(self, entries: Sequence[E]) -> None:
        """Entries that were taken run elsewhere."""
        with self._changed:
            self._away.update((entry.job_id, entry) for entry in entries)
        self.done(entries)

    @property
    def _busy(self) -> set[str]:
        """The keys of which none can be taken."""
        return {*self._running, *(entry.key for entry in self._away.values())}

    def _returned(self, job_id: str) -> E | None:
        entry = self._away.pop(job_id, None)
        if entry is not None:
            self._changed.notify_all()
        return entry

    def _out(self, job_id: str) -> E | None:
        entry = self._waiting.pop(job_id, None)
        if entry is not None:
            place = entry.owner, entry.group
            self._groups[place] -= 1
            if not self._groups[place]:
                del self._groups[place]
        return entry

    def _next(self) -> E | None:
        """The first whose key is free, of the owner whose last turn is longest ago."""
        firsts: dict[str, E] = {}  # by owner
        passed = self._busy
        for entry in self._waiting.values():
            if entry.key not in passed:
                firsts.setdefault(entry.owner, entry)
            passed.add(entry.key)
        return min(firsts.values(), key=lambda entry: self._turns.get(entry.owner, 0), default=None)
