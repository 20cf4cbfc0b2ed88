"""Gather forwards that wait for the same frozen layer, and answer them with one pass over it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf

from service.errors import Draining, TemporaryReducedCapacity
from service.lora.grouped import Maps
from service.serving.passes import Rows, one_pass
from service.serving.window import Window


@dataclass(eq=False, slots=True)
class _Request:
    maps: Maps
    x: Rows
    until: float
    at: float
    answer: "Future[Rows]" = field(default_factory=Future)

    @property
    def nbytes(self) -> int:
        """What its rows and their outputs take."""
        return self.x.nbytes + len(self.x) * int(self.maps.weight.shape[1]) * self.x.itemsize


class Batcher:
    """A thread that computes forwards, and those of one base together.

    While it computes, others come and wait, so that batches grow with the load by themselves. A caller that has left
    (it cancelled its future) is passed over. `batches` and `requests` count what was computed.
    """

    def __init__(self, window: Window, clock: Callable[[], float] = time.monotonic) -> None:
        self.window = window
        self.batches = self.requests = 0
        self._clock = clock
        self._waiting: dict[Hashable, deque[_Request]] = {}  # by base, the longest waiting first
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._last, self._ended = 1, -inf  # how many requests the last batch had, and when it ended

    def submit(self, base: Hashable, maps: Maps, x: Rows, until: float = inf) -> "Future[Rows]":
        """The outputs (n, out) of rows (n, in), some time later.

        Args:
            base: names the frozen weight; maps under one name share it.
            until: the clock's time by which it must have begun.

        The future raises TemporaryReducedCapacity when it has not begun by then, and Draining after `close`.
        """
        request = _Request(maps, x, until, self._clock())
        with self._changed:
            if self._closed:
                request.answer.set_exception(_closed())
                return request.answer
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lora-forward", daemon=True)
                self._thread.start()
            self._waiting.setdefault(base, deque()).append(request)
            self._changed.notify()
        return request.answer

    def close(self) -> None:
        """Compute no more; what still waits fails as Draining."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while batch := self._gathered():
            begun = [request for request in batch if self._begins(request)]
            if begun:
                self._answer(begun)
                self.batches += 1
                self.requests += len(begun)
            self._last, self._ended = len(batch), self._clock()
            del batch, begun  # while this waits for more, nobody else holds the tensors
        with self._changed:
            for request in (request for line in self._waiting.values() for request in line):
                if request.answer.set_running_or_notify_cancel():
                    request.answer.set_exception(_closed())
            self._waiting.clear()

    def _gathered(self) -> list[_Request]:
        """The next batch, when its window has closed; nothing when there is to be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            base, line = next(iter(self._waiting.items()))
            expected = self.window.expected(self._last, self._ended, self._clock())
            while not self._closed and (left := self._seconds_left(line, expected)) > 0:
                self._changed.wait(left)
            batch = [line.popleft()]
            rows, nbytes = len(batch[0].x), batch[0].nbytes
            while line and self.window.holds(rows := rows + len(line[0].x), nbytes := nbytes + line[0].nbytes):
                batch.append(line.popleft())
            del self._waiting[base]
            if line:  # behind the other bases, which have waited too
                self._waiting[base] = line
            return batch

    def _seconds_left(self, line: Sequence[_Request], expected: int) -> float:
        return self.window.seconds_left(
            opened=line[0].at,
            rows=sum(len(request.x) for request in line),
            requests=len(line),
            expected=expected,
            until=min(request.until for request in line),
            now=self._clock(),
        )

    def _begins(self, request: _Request) -> bool:
        """Whether a request is still to be computed."""
        if not request.answer.set_running_or_notify_cancel():
            return False
        if self._clock() <= request.until:
            return True
        request.answer.set_exception(
            TemporaryReducedCapacity(
                "the forward could not begin in time (LORA_FORWARD_WAIT_MS); try again", reason="too-late"
            )
        )
        return False

    def _answer(self, batch: list[_Request]) -> None:
        """Compute a batch; where that fails, each by itself, so that none suffers from another."""
        try:
            outputs = one_pass([(request.maps, request.x) for request in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:
                for request in batch:
                    self._answer([request])
        else:
            for request, y in zip(batch, outputs, strict=True):
                request.answer.set_result(y)


def _closed() -> Draining:
    return Draining("the service is shutting down and computes no more")
