"""Server-Sent Events (WHATWG HTML, 9.2): what happens in worker threads, told to clients as it happens."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from service.codecs.json import dumps
from service.engine import Engine
from service.errors import JobNotFound
from service.jobs import events
from service.jobs.events import Event

KEEP_ALIVE_SECONDS = 15.0
RETRY_MS = 2_000
MEDIA_TYPE = "text/event-stream"


class Bell:
    """Rings in the event loop when a job changes in some thread; of any job when none is named."""

    def __init__(self, engine: Engine, job_id: str | None = None) -> None:
        self._rung = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ring() -> None:
            with suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(self._rung.set)

        self._stop = engine.ledger.watch(ring, job_id)

    def __enter__(self) -> "Bell":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    async def wait(self, seconds: float) -> bool:
        """Wait for the next ring since the last wait; False when none came in time."""
        try:
            await asyncio.wait_for(self._rung.wait(), max(seconds, 0))
        except TimeoutError:
            return False
        self._rung.clear()
        return True


async def until_ended(engine: Engine, job_id: str, seconds: float) -> None:
    """Wait until a job has ended, the time is up, or the service shuts down."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    with Bell(engine, job_id) as bell:
        while not engine.ledger.get(job_id).state.terminal and not engine.draining:
            if not await bell.wait(deadline - loop.time()):
                return


async def of_job(engine: Engine, job_id: str, after: int) -> AsyncIterator[bytes]:
    """The events of one job above a number, to its last."""

    def news(seen: int) -> tuple[list[tuple[int, Event, dict[str, Any]]], bool]:
        try:
            job = engine.ledger.get(job_id)
        except JobNotFound:  # it ended, and was forgotten before this stream came to its last events
            return [], True
        return [(event.number, event, event.data) for event in events.since(job, seen)], job.state.terminal

    with Bell(engine, job_id) as bell:
        async for frame in _frames(engine, bell, after, news):
            yield frame


async def of_all(engine: Engine, after: int) -> AsyncIterator[bytes]:
    """What happens to any job, from a place in the feed on."""

    def news(seen: int) -> tuple[list[tuple[int, Event, dict[str, Any]]], bool]:
        return [
            (place, event, {"job_id": job.id, "model_id": job.model_id, "number": event.number, **event.data})
            for place, job, event in engine.ledger.feed(seen)
        ], False

    with Bell(engine) as bell:
        async for frame in _frames(engine, bell, after, news):
            yield frame


async def _frames(
    engine: Engine, bell: Bell, seen: int, news: Callable[[int], tuple[list[tuple[int, Event, dict[str, Any]]], bool]]
) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    while True:
        fresh, over = news(seen)
        if fresh:
            seen = fresh[-1][0]
            yield b"".join(frame(event.kind, data, place) for place, event, data in fresh)
        if over:
            return
        if engine.draining:
            yield frame("shutdown", {"detail": "the service is shutting down"})
            return
        if not await bell.wait(KEEP_ALIVE_SECONDS):
            yield b": keep-alive\n\n"


def frame(kind: str, data: dict[str, Any], number: int | None = None) -> bytes:
    """One event on the wire."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: ".encode() + dumps(data) + b"\n\n"
