"""Servers to measure, each on a core of its own, and lean connections to them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import httpx


@contextmanager
def started(command: list[str], ready: str) -> Iterator[str]:
    """The URL of a server that runs on the first core; the load comes from the last."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pin(first=True))
    try:
        assert process.stdout is not None
        yield next(line for line in process.stdout if line.startswith(ready)).removeprefix(ready).strip()
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def answering(command: list[str], url: str, path: str) -> Iterator[str]:
    """The URL of a server that says nothing when it is ready, but answers at a path, and runs on the first core."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: pin(first=True),
    )
    try:
        for _ in range(600):
            with suppress(httpx.TransportError):
                if httpx.get(url + path).is_success:
                    break
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pin(*, first: bool) -> None:
    """Keep this process on one core."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0] if first else cores[-1]})


def serve() -> list[str]:
    """The command of our own."""
    return [sys.executable, "-m", "service", "serve", "--port", "0"]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Callable[[str, bytes], Awaitable[bytes]]]:
    """A kept connection that posts JSON to a path and returns the answer's body; anything but a 2xx raises."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    async def post(path: str, body: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 2"), answer
        return await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))

    yield post
    writer.close()
