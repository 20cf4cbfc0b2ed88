"""Gather forwards that wait for the same frozen layer, and answer them with one pass over it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf

import numpy as np

from service.errors import Draining, TemporaryReducedCapacity
from service.lora.grouped import AnyMaps
from service.serving.passes import Rows, one_pass
from service.serving.window import Window


@dataclass(eq=False, slots=True)
class _Request:
    base: Hashable
    maps: AnyMaps
    x: Rows
    until: float
    at: float
    answer: "Future[Rows]" = field(default_factory=Future)
    done: int = 0  # rows, where there are more than one pass may have
    y: Rows | None = None

    @property
    def seconds(self) -> float:
        """How long it may wait."""
        return self.until - self.at

    @property
    def rows(self) -> int:
        """How many are still to be computed."""
        return len(self.x) - self.done

    def most(self, window: Window) -> int:
        """How many rows a pass over its layers may have."""
        return min(window.most_rows(*weight.shape) for weight in self.maps.weights)

    def took(self, outputs: Rows) -> Rows | None:
        """All outputs, where these were the last that were missing."""
        if len(outputs) == len(self.x):
            return outputs
        if self.y is None:
            self.y = np.empty((len(self.x), outputs.shape[1]), outputs.dtype)
        self.y[self.done : self.done + len(outputs)] = outputs
        self.done += len(outputs)
        return None if self.rows else self.y


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

    def submit(self, base: Hashable, maps: AnyMaps, x: Rows, until: float = inf) -> "Future[Rows]":
        """The outputs (n, out) of rows (n, in), some time later.

        Args:
            base: names the frozen weight; maps under one name share it.
            until: the clock's time by which it must have begun.

        The future raises TemporaryReducedCapacity when it has not begun by then or would not, and Draining after
        `close`.
        """
        request = _Request(base, maps, x, until, self._clock())
        with self._changed:
            if self._closed or self.crowded(base, request.seconds):
                request.answer.set_exception(_closed() if self._closed else too_late(request.seconds))
                return request.answer
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="lora-forward", daemon=True)
                thread.start()  # where there can be no more threads, the next request tries again
                self._thread = thread
            self._waiting.setdefault(base, deque()).append(request)
            self._changed.notify()
        request.answer.add_done_callback(lambda answer: self._left(request) if answer.cancelled() else None)
        return request.answer

    def crowded(self, base: Hashable, seconds: float) -> bool:
        """Whether who waits longest for a base has done so for half of the seconds: who comes now would be too late."""
        with self._changed:
            line = self._waiting.get(base)
            return line is not None and self._clock() - line[0].at > seconds / 2

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
                new = sum(not request.done for request in begun)
                self._answer(begun)
                self.batches += 1
                self.requests += new
            self._last, self._ended = len(batch), self._clock()
            del batch, begun  # while this waits for more, nobody else holds the tensors
        with self._changed:
            for request in (request for line in self._waiting.values() for request in line):
                if request.done or request.answer.set_running_or_notify_cancel():
                    request.answer.set_exception(_closed())
            self._waiting.clear()

    def _gathered(self) -> list[_Request]:
        """The next batch, when its window has closed; nothing when there is to be none."""
        with self._changed:
            line: deque[_Request] = deque()
            while not line:  # or all who waited in it have left
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                base, line = next(iter(self._waiting.items()))
                expected = self.window.expected(self._last, self._ended, self._clock())
                while line and not self._closed and (left := self._seconds_left(line, expected)) > 0:
                    self._changed.wait(left)
            batch = [line.popleft()]
            rows, most = batch[0].rows, batch[0].most(self.window)
            while line and (rows := rows + line[0].rows) <= most:
                batch.append(line.popleft())
            del self._waiting[base]
            if line:  # behind the other bases, which have waited too
                self._waiting[base] = line
            return batch

    def _left(self, request: _Request) -> None:
        """Hold the rows of a caller that has left no longer."""
        with self._changed:
            line = self._waiting.get(request.base, deque())
            if request in line:
                line.remove(request)
                if not line:
                    del self._waiting[request.base]

    def _again(self, request: _Request) -> None:
        """Put a request with more rows than a pass may have behind the other bases, to go on with it."""
        with self._changed:
            self._waiting.setdefault(request.base, deque()).appendleft(request)

    def _seconds_left(self, line: Sequence[_Request], expected: int) -> float:
        return self.window.seconds_left(
            opened=line[0].at,
            rows=sum(request.rows for request in line),
            requests=len(line),
            expected=expected,
            until=min(request.until for request in line),
            now=self._clock(),
        )

    def _begins(self, request: _Request) -> bool:
        """Whether a request is still to be computed."""
        if request.done:
            return True
        if not request.answer.set_running_or_notify_cancel():
            return False
        if self._clock() <= request.until:
            return True
        request.answer.set_exception(too_late(request.seconds))
        return False

    def _answer(self, batch: list[_Request]) -> None:
        """Compute a batch; where that fails, each by itself, so that none suffers from another."""
        try:
            most = batch[0].most(self.window)
            outputs = one_pass([(request.maps, request.x[request.done :][:most]) for request in batch])
            whole = [request.took(y) for request, y in zip(batch, outputs, strict=True)]
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:
                for request in batch:
                    self._answer([request])
        else:
            for request, y in zip(batch, whole, strict=True):
                if y is None:
                    self._again(request)
                else:
                    request.answer.set_result(y)


def too_late(seconds: float) -> TemporaryReducedCapacity:
    """What is told of a forward that does not begin within the time that it may wait."""
    detail = f"the forward could not begin within {round(seconds, 3):g} s (LORA_FORWARD_WAIT_MS); try again"
    return TemporaryReducedCapacity(detail, reason="too-late")


def _closed() -> Draining:
    return Draining("the service is shutting down and computes no more")
