"""A load of requests that costs the core it comes from as little as may be: by wrk where that is installed."""

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

CONNECTIONS = 16


@dataclass(frozen=True)
class Request:
    """One request, sent over and over."""

    path: str
    body: bytes
    media_type: str = "application/json"
    headers: str = ""

    def encoded(self) -> bytes:
        """Its bytes on the wire."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {self.media_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n{self.headers}\r\n"
        )
        return head.encode() + self.body


@dataclass(frozen=True)
class Measured:
    """What came of a load: answers per second, and each answer's seconds in order of size."""

    rate: float
    seconds: list[float]

    def quantile(self, share: float) -> float:
        """The milliseconds within which this share of the answers came."""
        return 1_000 * self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]

    @property
    def median(self) -> float:
        """The median in milliseconds."""
        return 1_000 * statistics.median(self.seconds)


class _Client(asyncio.Protocol):
    """One kept connection with one request under way; with `every`, the next starts that long after the last did."""

    def __init__(self, request: bytes, deadline: float, every: float | None) -> None:
        self.request, self.deadline, self.every = request, deadline, every
        self.times: list[float] = []
        self.over = asyncio.get_running_loop().create_future()
        self.held = bytearray()
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.due = time.perf_counter()
        self._send()

    def _send(self) -> None:
        self.at = self.due if self.every else time.perf_counter()  # late is late, whoever was to blame
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.missing:
            self.missing -= len(data)
        else:
            self.held += data
            end = self.held.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.held[:end]).lower()
            if not head.startswith(b"http/1.1 2"):
                self.over.set_exception(RuntimeError(bytes(self.held[:500]).decode()))
                self.transport.close()
                return
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            self.missing = end + 4 + length - len(self.held)
            self.held.clear()
        if self.missing:
            return
        now = time.perf_counter()
        self.times.append(now - self.at)
        if now >= self.deadline:
            self.transport.close()
        elif self.every is None:
            self._send()
        else:
            self.due += self.every
            asyncio.get_running_loop().call_later(max(0, self.due - now), self._send)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def load(
    url: str, request: Request, seconds: float = 2.0, connections: int = CONNECTIONS, rate: float | None = None
) -> Measured:
    """Ask over keep-alive connections, each with one request under way.

    Args:
        rate: how many requests a second in all; without it, as many as are answered.
    """
    host, port = url.removeprefix("http://").split(":")
    loop, encoded = asyncio.get_running_loop(), request.encoded()
    began = time.perf_counter()
    every = None if rate is None else connections / rate
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: _Client(encoded, began + seconds, every), host, int(port))
        clients.append(client)
    await asyncio.wait_for(asyncio.gather(*(client.over for client in clients)), seconds + 60)
    took = time.perf_counter() - began
    times = sorted(seconds for client in clients for seconds in client.times)
    return Measured(len(times) / took, times)


def saturated(url: str, request: Request, seconds: float = 1.0) -> float:
    """Requests a second that a server answers when it is never without one."""
    wrk = shutil.which("wrk")
    return _by_wrk(wrk, url, request, seconds) if wrk else uvloop.run(load(url, request, seconds)).rate


def _by_wrk(wrk: str, url: str, request: Request, seconds: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "post.lua")
        body.write_bytes(request.body)
        script.write_text(
            f"""
            wrk.method = "POST"
            wrk.headers["Content-Type"] = {json.dumps(request.media_type)}
            local file = io.open({json.dumps(str(body))}, "rb")
            wrk.body = file:read("*a")
            file:close()
            """
        )
        core = str(max(os.sched_getaffinity(0)))
        load = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", str(script), url + request.path]
        said = subprocess.run(["taskset", "-c", core, *load], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found, said
    return float(found[1])
