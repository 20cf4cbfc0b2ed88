"""Throw spoilt bytes at the port of a running service and at every decoder: none may break, hang or grow.

`python -m tests.trust.fuzz SECONDS [SEED]` does so for as long as it is told; the tests for a moment.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random, randrange

import httpx

from tests.trust.decoders import DECODERS
from tests.trust.schema import KEY, bounded
from tests.trust.spoiling import spoilt
from tests.trust.valid import valid

SILENCE_SECONDS = 0.1  # after which no more is awaited of an answer
DEADLINE_SECONDS = 10.0
GROWTH_BYTES = 256 * 2**20
STRANGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # the hello of TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    b"\0" * 1_000,
    b"\n" * 1_000,
]


class Broken(AssertionError):
    """Something gave way; the text tells the bytes that did it."""


def messages(draw: Random, requests: list[bytes]) -> Iterator[bytes]:
    """What is sent on one connection each, without end: most of it nearly a request."""
    while True:
        kind = draw.random()
        if kind < 0.05:
            yield draw.randbytes(draw.randint(1, 2_000))
        elif kind < 0.1:
            yield spoilt(draw, draw.choice(STRANGE))
        elif kind < 0.25:  # one behind the other
            pipelined = b"".join(draw.choices(requests, k=draw.randint(2, 20))).replace(b"Connection: close\r\n", b"")
            yield spoilt(draw, pipelined)
        else:
            yield spoilt(draw, draw.choice(requests))


def sent(url: str, message: bytes, silence_seconds: float = SILENCE_SECONDS) -> bytes:
    """What a server answers until it closes or falls silent."""
    host, port = url.removeprefix("http://").split(":")
    answer = b""
    with (
        suppress(ConnectionError, TimeoutError),  # it may close before all is sent
        socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) as connection,
    ):
        connection.sendall(message)
        connection.settimeout(silence_seconds)
        while len(answer) < 2**20 and (piece := connection.recv(65_536)):
            answer += piece
    return answer


def must_be_well(url: str, process: subprocess.Popen[str], last: bytes) -> None:
    """The process lives, answers in time, and has had no 500."""
    if process.poll() is not None:
        raise Broken(f"the service ended with status {process.returncode} after {last!r}")
    try:
        assert httpx.get(f"{url}/livez", timeout=DEADLINE_SECONDS).status_code == 200
    except (httpx.TransportError, AssertionError) as error:
        raise Broken(f"the service no longer answers ({error!r}) after {last!r}") from error


def must_have_had_no_500(url: str) -> None:
    """The service's own count, which has answers too that nobody read."""
    headers = {"Authorization": f"Bearer {KEY}"}
    counted = httpx.get(f"{url}/metrics", headers=headers, timeout=DEADLINE_SECONDS).text
    if broken := [line for line in counted.splitlines() if 'status="500"' in line and "_count" in line]:
        raise Broken(f"answered with 500: {broken}")


def resident(pid: int) -> int:
    """The bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4_096


def of_port(seconds: float, seed: int) -> Iterator[str]:
    """Spoilt requests to a service of its own; says every second how it goes.

    Raises:
        Broken: for a 500, a silent or a dead service, or one that grows without bound.
    """
    draw, count = Random(seed), 0
    with bounded() as (process, url):
        requests = valid(url)
        said = began = time.monotonic()
        start = resident(process.pid)
        for message in messages(draw, requests):
            if b"HTTP/1.1 500 " in sent(url, message):
                raise Broken(f"seed {seed}: 500 after {message!r}")
            count += 1
            if count % 20 == 0:
                must_be_well(url, process, message)
            if time.monotonic() > min(said + 1, began + seconds):
                said, grown = time.monotonic(), resident(process.pid) - start
                yield f"{count:,} connections, {grown / 2**20:+.0f} MiB"
                if grown > GROWTH_BYTES:
                    raise Broken(f"seed {seed}: the service has grown by {grown / 2**20:.0f} MiB")
            if time.monotonic() > began + seconds:
                break
        must_have_had_no_500(url)


def of_decoder(name: str, draw: Random, times: int) -> None:
    """Spoilt bodies to one decoder.

    Raises:
        Broken: for an error that is no refusal, or one body that takes more than a second.
    """
    decoder = DECODERS[name]
    for _ in range(times):
        body = spoilt(draw, draw.choice(decoder.bodies))
        began = time.monotonic()
        try:
            decoder.decode(body)
        except decoder.refusals:
            pass
        except Exception as error:
            raise Broken(f"{name}: {error!r} after {body!r}") from error
        if time.monotonic() > began + 1:
            raise Broken(f"{name} took {time.monotonic() - began:.1f} s for {body!r}")


def of_decoders(seconds: float, seed: int) -> Iterator[str]:
    """Spoilt bodies to all decoders in turn; says after each round how it goes."""
    draw, rounds, began = Random(seed), 0, time.monotonic()
    while time.monotonic() < began + seconds:
        for name in DECODERS:
            of_decoder(name, draw, 200)
        rounds += 1
        yield f"{rounds * 200 * len(DECODERS):,} bodies"


def main() -> None:
    """Half of the time for the port, and half for the decoders."""
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else randrange(2**32)
    print(f"seed {seed}")
    for what, told in (("port", of_port(seconds / 2, seed)), ("decoders", of_decoders(seconds / 2, seed))):
        for line in told:
            print(f"\r{what}: {line}   ", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
