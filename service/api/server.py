"""uvicorn, with bounds on how a request may arrive and an end that is clean."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 16 * 1024
MAX_URL_BYTES = 8 * 1024
MAX_CHUNKS = 65_536
LARGE_BYTES = 16 * 1024
MAX_HELD = 4


class Refused(Exception):
    """Stops the parser; the status says what was too much."""

    def __init__(self, status: int) -> None:
        self.status = status


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
        if self._held:
            self._transport.writelines(self._held)
            self._held = []


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, which by itself would keep a head of any size in memory, and write an answer in two parts."""

    _in_head = True
    _head_bytes = 0  # of the parts that the parser has passed on
    _read_bytes = 0  # of the reads since the one in which the head began, which the parser may still hold
    _chunks = 0
    _refusal = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        began_before = self._in_head
        super().data_received(data)
        if began_before and self._in_head and not self.transport.is_closing():
            self._read_bytes += len(data)
            if self._read_bytes > MAX_HEAD_BYTES:
                self._refuse(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes, self._read_bytes, self._chunks = True, 0, 0, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)
        if len(self.url) > MAX_URL_BYTES:
            self._stop(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + len(": \r\n")
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop(431)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False

    def on_chunk_header(self) -> None:
        """Count: a chunk costs more than the one byte it may hold."""
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            self._stop(400)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers to a request it cannot read, with the status that fits."""
        if self._refusal == 400:
            super().send_400_response(msg)
        else:
            self._refuse(self._refusal)

    def _stop(self, status: int) -> None:
        self._refusal = status
        raise Refused(status)

    def _refuse(self, status: int) -> None:
        self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()


class Server(uvicorn.Server):
    """A server that says when it listens, tells the app when it is about to end, and ends with status 0."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None], leaving: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._leaving = leaving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: finish what is under way. Second: leave at once."""
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._leaving()  # not in the signal's handler, which would wait for locks that the code below it holds
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # else uvicorn raises them again, and a clean end looks like a crash


def config(app: object, host: str, port: int, grace_seconds: int) -> uvicorn.Config:
    """uvicorn's settings for this service."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=host,
        port=port,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here depends on who the client is
        timeout_graceful_shutdown=grace_seconds,
    )
