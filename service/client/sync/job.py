"""A job of a running service: read it again, follow it, wait for it, cancel it."""

import time
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Self

import httpx
from pydantic import PrivateAttr

from service.client import retries
from service.client.calls import JSON, at, get, post
from service.client.progress import shown
from service.client.record import Record, failed, late, looks
from service.client.sse import Event, Reader, following
from service.client.sync.connection import Connection
from service.jobs.state import State
from service.schemas.training import EventPage


class Job(Record):
    """A training run, with the fields of the service's answer as they were when it was last read."""

    _connection: Connection = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        self._connection = context

    def refresh(self) -> Self:
        """The job, read again."""
        self._take(self._connection.read(type(self), get(at("jobs", self))))
        return self

    def cancel(self) -> Self:
        """The job, cancelled unless it had ended."""
        self._take(self._connection.read(type(self), post(at("jobs", self, "cancel"), {}).once()))
        return self

    def events(self, after: int = 0) -> Iterator[Event]:
        """What happens to the job as it happens, to the last; only what comes after the event of this number.

        A connection that breaks is made again, and goes on where it was.
        """
        tried = 0
        while True:
            lost: Exception = EOFError("the events end before the job does")
            try:
                with self._connection.stream(following(self.id, after)) as answer:
                    if answer.status_code == httpx.codes.NO_CONTENT:
                        return
                    reader = Reader()
                    for line in answer.iter_lines():
                        if (event := reader.feed(line)) is not None:
                            after, tried = event.id, 0
                            yield event
                            if event.kind == "done":
                                return
            except httpx.RequestError as error:
                lost = error
            if tried >= self._connection.max_retries:
                raise self._connection.unreachable(lost) from lost
            time.sleep(retries.backoff(tried))
            tried += 1

    def wait(self, timeout: float | None = None, *, progress: bool | None = None, check: bool = False) -> Self:
        """The job when it has ended, however that was: look at its `state`, or `check` that it succeeded.

        Args:
            timeout: the seconds after which to give up waiting; the job goes on.
            progress: a bar with the epoch, the loss and the time left; by default where somebody looks on, which is in
                a terminal or a notebook, and never elsewhere.
            check: raise unless the job has succeeded.

        Raises:
            TimeoutError: when the job has not ended in time.
            JobFailed: with `check`, for a job that failed or was cancelled.
        """
        if not self.ended:
            with shown(self, progress) as show:
                self._until_ended(timeout, show)
            self.refresh()
        if check and self.state is not State.SUCCEEDED:
            raise failed(self)
        return self

    def _until_ended(self, within: float | None, show: Callable[[Event], None]) -> None:
        """Look at the job's events again and again, since the end of a stream cannot be waited for in time."""
        began, after = monotonic(), 0
        for seconds in looks():
            page = self._connection.read(EventPage, get(at("jobs", self, "events"), JSON, after=after))
            for event in page.items:
                show(Event(event.id, event.event, event.data))
                after = event.id
            if page.items and page.items[-1].event == "done":
                return
            left = seconds if within is None else began + within - monotonic()
            if left <= 0:
                raise late(self, within)
            time.sleep(min(seconds, left))
