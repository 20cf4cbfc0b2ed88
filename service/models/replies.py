"""What was answered under an Idempotency-Key, so that whoever asks again gets that answer and changes nothing."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

import orjson

from service.clock import steady
from service.errors import IdempotencyInFlight, IdempotencyMismatch
from service.models.rows import dumps
from service.models.store import Change, Drop, News, Put, Store

KEPT_HOURS = 24
MAX_KEPT = 10_000


@dataclass(frozen=True)
class Reply:
    """An answer, and the `fingerprint` of the request that got it; `made` is the id of what that made."""

    fingerprint: str
    made: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    at: datetime = field(default_factory=steady)


class Replies:
    """Replies by key, the oldest first; they are forgotten after a day, or when there are too many."""

    def __init__(self, store: Store, now: Callable[[], datetime] = steady) -> None:
        self._store = store
        self._now = now
        self._replies: dict[str, Reply] = dict(sorted(_read(store), key=lambda each: each[1].at))
        # Keys, and which others go when their answers are kept, once the store has been told of that.
        self._under_way: dict[str, list[str] | None] = {}
        self._lock = threading.Lock()

    def begin(self, key: str, fingerprint: str) -> Reply | None:
        """The earlier answer under a key; None where this is the first request, which then must come to its `end`.

        Raises:
            IdempotencyMismatch: when the key was used for another request.
            IdempotencyInFlight: while the first request has not been answered.
        """
        with self._lock:
            reply = self._replies[key] if self._is_known(key) else None
            if reply is not None and reply.fingerprint != fingerprint:
                raise IdempotencyMismatch("this Idempotency-Key was used for another request; take a new one for this")
            if reply is None:
                if key in self._under_way or any(key in going for going in self._under_way.values() if going):
                    raise IdempotencyInFlight("a request with this Idempotency-Key has not been answered yet")
                self._under_way[key] = None
            return reply

    def kept(self, key: str, reply: Reply) -> Iterator[Change]:
        """An answer, to be stored together with what it tells of; it takes the place of those that are too old.

        Raises:
            IdempotencyInFlight: when another server has answered meanwhile.
        """
        with self._lock:
            if self._is_known(key):
                raise IdempotencyInFlight("a request with this Idempotency-Key was answered meanwhile; ask again")
        facts = {name: getattr(reply, name) for name in ("fingerprint", "made", "status", "headers")}
        columns: dict[str, Any] = {"created_at": reply.at.isoformat(), "facts": dumps(facts), "body": reply.body}
        yield Put("replies", {"key": key, **columns})
        with self._lock:
            self._under_way[key] = going = self._too_old()
        for name in going:
            yield Drop("replies", {"key": name})

    def learn(self, news: News) -> None:
        """Take in what other servers answered."""
        with self._lock:
            keys = news.of("replies", self._replies)
            for key in keys:
                self._replies.pop(key, None)
            self._replies.update(_read(self._store, key=keys))

    def _is_known(self, key: str) -> bool:
        reply = self._replies.get(key)
        return reply is not None and self._now() - reply.at <= timedelta(hours=KEPT_HOURS)

    def end(self, key: str, reply: Reply | None) -> None:
        """The request under a key is over; what it was answered is kept, unless it made nothing."""
        with self._lock:
            gone = self._under_way.pop(key, None)
            if reply is None:
                return
            for name in (key, *(self._too_old() if gone is None else gone)):
                self._replies.pop(name, None)
            self._replies[key] = reply

    def _too_old(self) -> list[str]:
        """The keys of replies that there is no need to keep, and that no request under way is about to answer anew."""
        old = self._now() - timedelta(hours=KEPT_HOURS)
        surplus = len(self._replies) + 1 - MAX_KEPT
        first = takewhile(lambda each: each[0] < surplus or each[1][1].at < old, enumerate(self._replies.items()))
        return [key for _, (key, _) in first if key not in self._under_way]


def _read(store: Store, **where: Any) -> Iterator[tuple[str, Reply]]:
    for row in store.rows("replies", "key", "created_at", "facts", "body", **where):
        yield (
            row["key"],
            Reply(**orjson.loads(row["facts"]), body=row["body"], at=datetime.fromisoformat(row["created_at"])),
        )
