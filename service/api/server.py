"""uvicorn, with bounds on how a request may arrive and an end that is clean."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from types import FrameType
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api import problems
from service.api.door import request_id_of
from service.api.patience import Part, Patience, Stage, Waits
from service.errors import HeadersTooLarge, RequestTimeout, ServiceError, Unreadable, UriTooLong
from service.settings import Settings

MAX_HEAD_BYTES = 16 * 1024
MAX_URL_BYTES = 8 * 1024
MAX_CHUNKS = 65_536
LARGE_BYTES = 16 * 1024
MAX_HELD = 4
FRAMING = (b"content-length", b"transfer-encoding")


NO_REQUEST = Unreadable("what came is no request of HTTP/1.1, so the connection is closed")
LONG_HEAD = HeadersTooLarge(f"the request line and headers may have {MAX_HEAD_BYTES} bytes", limit=MAX_HEAD_BYTES)
LONG_URL = UriTooLong(f"the URL may have {MAX_URL_BYTES} bytes", limit=MAX_URL_BYTES)
LATE = {
    Part.HEAD: RequestTimeout("the head of the request took longer than /limits says, so the connection is closed"),
    Part.BODY: RequestTimeout(
        "the body took longer than /limits says, so the connection is closed; it may be too slow"
    ),
}
MANY_CHUNKS = Unreadable(f"the body may have {MAX_CHUNKS} chunks; send longer ones", limit=MAX_CHUNKS)


class Joined:
    """A transport that sends what is written in one turn of the loop by one system call, at the end of the turn.

    uvicorn writes a head and its body one after the other, and where many requests wait, their answers one by one. A
    write that finds the client asleep has to wake it, which on one machine takes longer than a small forward; written
    back to back, only the first does. What is large goes out at once, so that the flow is controlled as ever.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        if len(data) > LARGE_BYTES or len(self._held) > MAX_HELD:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.writelines(held)


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with bounds on the head, and answers that are written in one part.

    Upgrades are ignored, as RFC 9110, 7.8, lets a server do: of a request that offers one, such as Java's client and
    `curl --http2` make, uvicorn would drop the body. And when a connection is lost, the request that runs is told, not
    the last one that was read.
    """

    _awaited = Part.HEAD
    _turn = 0  # how many requests have begun
    _head_bytes = 0  # of the parts that the parser has passed on
    _read_bytes = 0  # of the reads after the one in which the head began, which the parser may still hold
    _began = False  # the head, and in this read
    _body_bytes = 0
    _chunks = 0
    _refusal: ServiceError = NO_REQUEST
    _offered = False  # an upgrade, by the request that is read
    _resuming = False
    _data = b""  # what came last
    _running: RequestResponseCycle | None = None
    _waits: Waits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._waits = Waits(self.loop.time(), self._stage)
        super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]

    def look(self, now: float, patience: Patience) -> None:
        """Close the connection where its client takes too long."""
        if self.flow.read_paused:  # then it is the client who waits
            self._waits.rest(now)
        part = self._waits.too_long(now, self._stage, self.transport.get_write_buffer_size(), patience)
        if part is Part.ANSWER:
            self.transport.abort()
        elif part is not Part.NOTHING and not self.transport.is_closing():
            self._give_up(part)

    @property
    def _stage(self) -> Stage:
        rests = self._awaited is Part.NOTHING and self.cycle is not None and self.cycle.response_complete
        return Stage(Part.NEXT if rests else self._awaited, self._turn, self._body_bytes)

    def _give_up(self, part: Part) -> None:
        """Say that a part has taken too long, where an answer can still be one to this request."""
        answered = part is Part.BODY and self.cycle is not None and self.cycle.response_started
        if answered or part is Part.NEXT or (part is Part.HEAD and not self._turn):
            self.transport.close()
        else:
            self._refuse(LATE[part])

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._began, self._data = False, data
        super().data_received(data)
        if self._awaited is Part.HEAD and not self._began and not self.transport.is_closing():
            self._read_bytes += len(data)
            if self._read_bytes > MAX_HEAD_BYTES:
                self._refuse(LONG_HEAD)

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        super().on_message_begin()
        self._turn += 1
        self._awaited, self._began, self._offered = Part.HEAD, True, False
        self._head_bytes = self._read_bytes = self._body_bytes = self._chunks = 0

    def on_url(self, url: bytes) -> None:
        if self._resuming:
            return
        super().on_url(url)
        self._head_bytes += len(url)
        if len(self.url) > MAX_URL_BYTES:
            self._stop(LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._resuming:
            return
        if self._awaited is Part.HEAD:  # what comes behind a body is no header (RFC 9110, 6.5)
            super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + len(": \r\n")
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop(LONG_HEAD)

    def on_headers_complete(self) -> None:
        if self._resuming:
            return
        super().on_headers_complete()
        self._awaited = Part.BODY
        self._offered = self.parser.should_upgrade() and self.scope["method"] != "CONNECT"

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._offered:  # else the parser leaves out the body
            self._awaited = Part.NOTHING
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Go on after a head that offers an upgrade: a fresh parser is told how the body comes, and reads it."""
        if not self._offered:
            return
        end = sys.exc_info()[1]
        assert isinstance(end, httptools.HttpParserUpgrade), "uvicorn calls this where it is caught"
        framing = [(name, value) for name, value in self.headers if name in FRAMING]
        head = b"".join(b"%b: %b\r\n" % field for field in framing)
        self.parser = httptools.HttpRequestParser(self)
        self._offered, self._resuming = False, True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % head)
        self._resuming = False
        super().data_received(self._data[end.args[0] :])

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's, but without a timer for each answer: `look` finds the connections that rest."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())

    def on_chunk_header(self) -> None:
        """Count: a chunk costs more than the one byte it may hold."""
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            self._stop(MANY_CHUNKS)

    def send_400_response(self, msg: str) -> None:
        """What is answered to a request that cannot be read."""
        self._refuse(self._refusal)

    def _stop(self, refusal: ServiceError) -> None:
        self._refusal = refusal
        raise ValueError(refusal.detail)  # which stops the parser

    def _refuse(self, refusal: ServiceError) -> None:
        if self.scope is not None:  # the door may have the request already, and wait for the rest of its body
            self.scope["state"]["unread"] = refusal
        request_id = request_id_of(b"")
        content = problems.body_of(refusal, instance="", request_id=request_id)
        head = (
            f"content-type: {problems.MEDIA_TYPE}\r\ncontent-length: {len(content)}\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[problems.status_of(type(refusal))] + head.encode() + content)
        self.transport.close()


class Server(uvicorn.Server):
    """A server that says when it listens, tells the app when it is about to end, and ends with status 0.

    From a signal on it serves for `drain_seconds` more, in which those who ask whether it is ready hear that it leaves.
    While it runs it looks after its connections, and closes those whose clients take too long.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        patience: Patience,
        ready: Callable[[str], None],
        leaving: Callable[[], None],
        drain_seconds: float,
        announcing: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._patience = patience
        self._ready = ready
        self._leaving = leaving
        self._drain_seconds = drain_seconds
        self._announcing = announcing
        self._leaves_at = inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def main_loop(self) -> None:
        looking = asyncio.create_task(self._look())
        try:
            await super().main_loop()
        finally:
            looking.cancel()

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._patience.look_seconds)
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.look(now(), self._patience)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: finish what is under way. Second: leave at once, as a kill does, which harms nothing."""
        if self.should_exit or self._leaves_at < inf:
            os._exit(0)
        if self._drain_seconds:
            self._announcing()
            self._leaves_at = time.monotonic() + self._drain_seconds
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or time.monotonic() >= self._leaves_at
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Not in the signal's handler, which would wait for locks that the code below it holds; nor here, for the disk.
        await asyncio.to_thread(self._leaving)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # else uvicorn raises them again, and a clean end looks like a crash


def server_of(
    app: object,
    settings: Settings,
    ready: Callable[[str], None],
    leaving: Callable[[], None],
    announcing: Callable[[], None] = lambda: None,
) -> Server:
    """The server of an app: uvicorn with the settings of this service.

    Args:
        ready: told the URL at which it listens.
        leaving: called when nothing more is taken.
        announcing: called by a signal, where there is to be some time between that and `leaving`.
    """
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on who the client is
        timeout_graceful_shutdown=settings.grace_seconds,
    )
    patience = Patience(settings.head_seconds, settings.body_seconds, settings.stall_seconds)
    return Server(config, patience, ready, leaving, settings.drain_seconds, announcing)
