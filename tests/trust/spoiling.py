"""Bytes with something wrong in them, drawn from a seed."""

from collections.abc import Callable
from random import Random

# What parsers stumble over.
TOKENS = [
    b"\r\n", b"\r\n\r\n", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"{", b"[", b"(", b'"', b"'", b"-", b"-1", b"e9",
    b"1e999", b"NaN", b"null", b"99999999999999999999", b"%00", b"%2e%2e/", b"../", b"\\", b"HTTP/1.0", b"HTTP/2.0",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Host: evil.example\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"X: " + b"a" * 20_000 + b"\r\n",
]  # fmt: skip


def _flipped(draw: Random, body: bytes) -> bytes:
    at = draw.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << draw.randrange(8)]) + body[at + 1 :]


def _cut(draw: Random, body: bytes) -> bytes:
    at = draw.randrange(len(body))
    return body[:at] + body[at + draw.randint(1, 8) :]


def _ended(draw: Random, body: bytes) -> bytes:
    return body[: draw.randrange(len(body))]


def _repeated(draw: Random, body: bytes) -> bytes:
    start, end = sorted(draw.choices(range(len(body) + 1), k=2))
    return body[:end] + body[start:end] * draw.randint(1, 3) + body[end:]


def _put_in(draw: Random, body: bytes) -> bytes:
    at = draw.randrange(len(body) + 1)
    return body[:at] + draw.choice(TOKENS) + body[at:]


def _noise(draw: Random, body: bytes) -> bytes:
    at = draw.randrange(len(body) + 1)
    return body[:at] + draw.randbytes(draw.randint(1, 16)) + body[at:]


WAYS: list[Callable[[Random, bytes], bytes]] = [_flipped, _cut, _ended, _repeated, _put_in, _noise]


def spoilt(draw: Random, body: bytes) -> bytes:
    """The body after one to four mishaps."""
    for _ in range(draw.randint(1, 4)):
        body = draw.choice(WAYS)(draw, body) if body else draw.randbytes(8)
    return body
