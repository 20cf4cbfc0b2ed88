"""Requests as bytes on a connection of their own, and all that comes back until the service closes it."""

import io
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any

KEY = "a-key-of-these-tests"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
JSON = {"Content-Type": "application/json"}
DEADLINE_SECONDS = 20
Names = Mapping[str, str]  # what stands in braces in a request, such as {model}, and what it is


@dataclass(frozen=True)
class Ask:
    """A well-formed HTTP request. Headers named as those it has anyway take their place; None leaves one out."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=lambda: JSON)

    def parts(self, names: Names) -> list[bytes]:
        body = filled(self.body, names)
        own = {"Host": "localhost", **AUTHORIZED, "Content-Length": str(len(body)), "Connection": "close"}
        fields = [f"{name}: {value}" for name, value in {**own, **self.headers}.items() if value is not None]
        head = "\r\n".join([f"{self.method} {self.path} HTTP/1.1", *fields, "", ""])
        return [filled(head.encode(), names), body]


@dataclass(frozen=True)
class Wire:
    """Bytes as they are, one part after another."""

    sent: tuple[bytes, ...]

    def parts(self, names: Names) -> list[bytes]:
        return [filled(part, names) for part in self.sent]


def wire(*sent: bytes) -> Wire:
    return Wire(sent)


def filled(template: bytes, names: Names) -> bytes:
    """The bytes with each name in braces replaced by what it stands for."""
    for name, value in names.items():
        template = template.replace(b"{%b}" % name.encode(), value.encode())
    return template


@dataclass(frozen=True)
class Answer:
    """All that a service sent on a connection; status, headers and body are of the first answer in it."""

    raw: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_bytes: int

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> dict[str, Any]:
        problem: dict[str, Any] = json.loads(self.body)
        return problem


def answer_to(url: str, parts: list[bytes]) -> Answer:
    """What comes back until the connection is closed; fails when it is not."""
    host, port = url.removeprefix("http://").split(":")
    received, sent = io.BytesIO(), 0
    with socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) as connection:
        with suppress(ConnectionError):  # a service that refuses does not wait for the rest
            for part in parts:
                connection.sendall(part)
                sent += len(part)
        with suppress(ConnectionError):
            while piece := connection.recv(65_536):
                received.write(piece)
    raw = received.getvalue()
    first = HTTPResponse(_Received(raw))  # type: ignore[arg-type]  # it reads no more of a socket than its file
    first.begin()
    headers = {name.lower(): value for name, value in first.getheaders()}
    return Answer(raw, first.status, headers, first.read(), sent)


@dataclass(frozen=True)
class _Received:
    raw: bytes

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.raw)
