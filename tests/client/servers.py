"""Servers that fail: one that answers as told, and one that passes on to the real service but breaks connections."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

CHUNK = 65_536
DEADLINE_SECONDS = 10


@dataclass
class Server:
    """Where it listens, and the requests that came: head and body."""

    url: str = ""
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def headers(self, name: str) -> list[str | None]:
        """The value of a header in each request that came."""
        prefix = f"{name.lower()}: "
        lines = [head.splitlines() for head, _ in self.requests]
        return [next((line[len(prefix) :] for line in each if line.lower().startswith(prefix)), None) for each in lines]


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    """An answer on the wire."""
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode() + body


@contextmanager
def scripted(*answers: bytes | None) -> Iterator[Server]:
    """A server that gives these answers one after another, the last of them for ever; None breaks the connection."""
    server = Server()

    def run(connection: socket.socket) -> None:
        with connection:
            server.requests.append(_request(connection))
            said = answers[min(len(server.requests), len(answers)) - 1]
            if said is not None:
                connection.sendall(said)

    with _served(run) as server.url:
        yield server


@contextmanager
def breaking(url: str, *allowed: int) -> Iterator[str]:
    """The URL of a way to a service that breaks the first connections after so many bytes of answers each."""
    host, port = url.removeprefix("http://").split(":")
    left = list(allowed)

    def run(near: socket.socket) -> None:
        far = socket.create_connection((host, int(port)))
        most = left.pop(0) if left else None
        for way in ((near, far, None), (far, near, most)):
            threading.Thread(target=_pass, args=way, daemon=True).start()

    with _served(run) as here:
        yield here


def _request(connection: socket.socket) -> tuple[str, bytes]:
    """The head and the body of what a client sends."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(CHUNK) or b"\r\n\r\n"
    head, _, body = read.partition(b"\r\n\r\n")
    lengths = [line for line in head.decode().lower().splitlines() if line.startswith("content-length:")]
    while lengths and len(body) < int(lengths[0].partition(":")[2]):
        body += connection.recv(CHUNK)
    return head.decode(), body


def _pass(source: socket.socket, sink: socket.socket, most: int | None = None) -> None:
    """Pass bytes on until either side closes, or so many have been passed; then close both."""
    with suppress(OSError):
        while read := source.recv(CHUNK):
            sink.sendall(read[:most])
            if most is not None and (most := most - len(read)) <= 0:
                break
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextmanager
def _served(run: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL at which each connection that comes is given to `run`, one after another."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):  # until nobody listens any more
                while True:
                    run(listening.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE_SECONDS)
