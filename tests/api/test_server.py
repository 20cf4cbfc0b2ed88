"""The server at its socket: what it does with bytes that are no request, and how it ends."""

import json
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random

import httpx
import pytest

from service.api.server import MAX_HEAD_BYTES
from tests.running import DEADLINE_SECONDS, Service, as_process, descendants, gone, in_thread, until

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST /models HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def exchange(service: Service, *parts: bytes, host: str = "127.0.0.1") -> bytes:
    """Send bytes as they are, and read until the server closes or falls silent."""
    port = int(service.url.rpartition(":")[2])
    received = b""
    with socket.create_connection((host, port), timeout=5) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            connection.settimeout(2)
            while chunk := connection.recv(65_536):
                received += chunk
        except (ConnectionError, TimeoutError):
            pass
    return received


@pytest.mark.parametrize(
    ("name", "parts", "status"),
    [
        ("one header of 1 MiB", [GET + b"X: " + b"a" * 2**20], b"431"),
        ("8,000 short headers", [GET + b"a: b\r\n" * 8_000 + b"\r\n"], b"431"),
        ("a header that never ends", [GET + b"X: ", *[b"a" * 4_096] * 10], b"431"),
        ("100,000 headers", [GET, *[b"X: 1\r\n" * 100] * 1_000], b"431"),
        ("a URL of 1 MiB", [b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n\r\n"], b"414"),
        ("random bytes", [Random(0).randbytes(512)], b"400"),
        ("65,537 chunks of a byte", [CHUNKED + b"1\r\n \r\n" * 65_537], b"400"),
        ("a TLS hello", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)], b"400"),
        ("HTTP/2", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], b"400"),
        ("a negative length", [b"POST /models HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"], b"400"),
        ("two lengths", [b"POST /models HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"], b"400"),
        (
            "length and chunks",
            [b"POST /models HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
            b"400",
        ),
        ("NUL in the path", [b"GET /models/\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n"], b"400"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_request_is_refused_and_the_connection_closed(
    service: Service, name: str, parts: list[bytes], status: bytes
) -> None:
    answer = exchange(service, *parts)
    # A server that closes while the client still sends may be reset before its answer is read.
    assert answer.startswith(b"HTTP/1.1 " + status) or (answer == b"" and len(b"".join(parts)) > 2 * MAX_HEAD_BYTES)
    assert b"Traceback" not in answer
    assert service.http.get("/livez").status_code == 200


def test_a_huge_length_is_413_before_any_of_it_is_read(service: Service) -> None:
    head = b"POST /models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = exchange(service, head + b"Content-Length: 99999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"/problems/too-large" in answer


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    answer = exchange(service, (GET + b"\r\n") * 99 + GET + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 100


def test_so_many_pipelined_requests_that_reads_end_within_heads_are_all_answered(service: Service) -> None:
    request = GET + b"X-Padding: " + b"x" * 100 + b"\r\n"
    answer = exchange(service, (request + b"\r\n") * 2_999 + request + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 3_000


@pytest.mark.parametrize("reads", [1, 3, 40])
def test_a_head_up_to_the_limit_is_read_however_it_is_cut(service: Service, reads: int) -> None:
    head = GET + b"Connection: close\r\nX: "
    head += b"a" * (MAX_HEAD_BYTES - len(head) - 40) + b"\r\n\r\n"
    size = len(head) // reads + 1
    answer = exchange(service, *(head[i : i + size] for i in range(0, len(head), size)))
    assert answer.startswith(b"HTTP/1.1 200")


def test_65_536_chunks_are_read(service: Service) -> None:
    answer = exchange(service, CHUNKED, b"1\r\n \r\n" * 65_534, b"2\r\n{}\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 422")


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("apart", [False, True])
def test_an_upgrade_that_is_offered_is_ignored_and_the_body_read(service: Service, apart: bool) -> None:
    model = service.engine.create(in_features=2, out_features=3, rank=1)
    head = b"POST /models/%b/forward HTTP/1.1\r\nContent-Type: application/json\r\n%b" % (model.id.encode(), UPGRADE)
    body = b'{"inputs": [[1, 2], [3, 4]]}'
    for framed in (
        [head + b"Content-Length: %d\r\n\r\n" % len(body), body],
        [head + b"Transfer-Encoding: chunked\r\n\r\n", b"1c\r\n", body, b"\r\n0\r\n\r\n"],
    ):
        last = GET + b"Connection: close\r\n\r\n"
        parts = [*framed, last] if apart else [b"".join([*framed, last])]
        answers = exchange(service, *parts)
        assert b'"shape":[2,3]' in answers
        assert answers.endswith(b'{"status":"ok"}')
    assert exchange(service, GET + UPGRADE + b"\r\n" + GET + b"Connection: close\r\n\r\n").count(b" 200 ") == 2


def test_what_stands_behind_a_body_is_no_header(service: Service) -> None:
    model = service.engine.create(in_features=2, out_features=3, rank=1)
    head = b"POST /models/%b/forward HTTP/1.1\r\nConnection: close\r\n" % model.id.encode()
    body = b'Transfer-Encoding: chunked\r\n\r\n12\r\n{"inputs": [1, 2]}\r\n0\r\nContent-Type: application/json\r\n\r\n'
    assert exchange(service, head + body).startswith(b"HTTP/1.1 415")


@pytest.mark.parametrize(
    ("request_", "slug"),
    [
        (b"GARBAGE\r\n\r\n", "unreadable"),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n", "uri-too-long"),
        (GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n", "headers-too-large"),
    ],
)
def test_what_cannot_be_read_is_a_problem_as_every_other_error(service: Service, request_: bytes, slug: str) -> None:
    head, _, body = exchange(service, request_).partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    problem = json.loads(body)
    assert problem["type"] == f"/problems/{slug}"
    assert f"x-request-id: {problem['request_id']}".encode() in head
    assert service.http.get(problem["type"]).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/models", "/jobs", "/limits", "/docs", "/openapi.json", "/events"])
def test_head_answers_as_get_does_without_a_body(service: Service, path: str) -> None:
    with service.http.stream("GET", path) as answer:
        expected = answer.status_code, answer.headers["content-type"]
    headed = service.http.head(path)
    assert (headed.status_code, headed.headers["content-type"], headed.content) == (*expected, b"")
    assert service.http.head("/nothing").status_code == 404


def test_one_byte_at_a_time_is_still_a_request(service: Service) -> None:
    request = GET + b"Connection: close\r\n\r\n"
    assert exchange(service, *[request[i : i + 1] for i in range(len(request))]).startswith(b"HTTP/1.1 200")


def test_clients_that_leave_are_no_errors(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    port = int(service.url.rpartition(":")[2])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert service.http.get("/livez").status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_client_that_resets_before_it_is_answered_is_no_error(
    service: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    port = int(service.url.rpartition(":")[2])
    model = service.engine.create(in_features=64, out_features=10)
    body = b'{"inputs": [%b]}' % b",".join([b"0"] * 64)
    forward = b"POST /models/%b/forward HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(3 * (forward % (model.id.encode(), len(body), body)))
    assert service.http.get("/livez").status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_stream_ends_with_its_client_though_another_request_came_behind_it() -> None:
    with in_thread(sse_streams=1) as service:
        port = int(service.url.rpartition(":")[2])

        def opens() -> bool:
            with service.http.stream("GET", "/events") as answer:
                return answer.status_code == 200

        for _ in range(3):
            until(opens)
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET + b"\r\n")
                connection.settimeout(DEADLINE_SECONDS)
                assert connection.recv(100).startswith(b"HTTP/1.1")
        until(opens)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_status_0_and_its_workers_with_it(sent: signal.Signals) -> None:
    with as_process(LORA_WORKERS="2") as (process, url):
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        family = descendants(process.pid)
        assert len(family) == 3  # the nursery, and its workers
        process.send_signal(sent)
        assert process.wait(DEADLINE_SECONDS) == 0
        until(lambda: all(gone(pid) for pid in family))


def test_a_kill_of_the_server_alone_leaves_no_worker_behind() -> None:
    with as_process(LORA_WORKERS="2") as (process, url):
        until(lambda: len(descendants(process.pid)) == 3)
        family = descendants(process.pid)  # the nursery, and its workers
        with httpx.Client(base_url=url) as http:
            model = http.post("/models", json={"in_features": 64, "out_features": 10}).json()
            job = http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 1}).json()
            until(lambda: http.get(f"/jobs/{job['id']}").json()["state"] == "running")
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_SECONDS)
        until(lambda: all(gone(pid) for pid in family))


def test_a_second_signal_ends_the_server_at_once_and_without_a_trace() -> None:
    with as_process() as (process, url):
        with half_sent(url):
            process.send_signal(signal.SIGTERM)
            until(lambda: not listens(url))
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()


def test_a_leaving_server_ends_its_streams_with_an_event_that_says_so() -> None:
    with as_process() as (process, url), httpx.Client(base_url=url, timeout=20) as http:
        model = http.post("/models", json={"in_features": 64, "out_features": 10}).json()
        job = http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 1}).json()
        with http.stream("GET", f"/jobs/{job['id']}/events") as stream:
            lines = stream.iter_lines()
            while next(lines) != "event: epoch":
                pass
            process.send_signal(signal.SIGTERM)
            at = time.monotonic()
            assert "event: shutdown" in list(lines)
            assert time.monotonic() - at < 5
        assert process.wait(DEADLINE_SECONDS) == 0


def test_requests_under_way_are_answered_before_the_server_leaves() -> None:
    with as_process() as (process, url):
        with ExitStack() as stack:
            connections = [stack.enter_context(half_sent(url)) for _ in range(8)]
            process.send_signal(signal.SIGTERM)
            until(lambda: not listens(url))
            for connection in connections:
                connection.sendall(b"}")
            for connection in connections:
                answer = connection.makefile("rb").read()
                assert answer.startswith(b"HTTP/1.1 201")
                assert b"connection: close" in answer
        assert process.wait(DEADLINE_SECONDS) == 0


def test_a_request_that_outlasts_the_grace_period_is_told_so() -> None:
    with as_process(LORA_GRACE_SECONDS="1") as (process, url):
        with half_sent(url) as connection:
            process.send_signal(signal.SIGTERM)
            answer = connection.makefile("rb").read()
        assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stdout is not None
        log = process.stdout.read()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"/problems/draining" in answer
    assert b"retry-after" in answer
    assert "Traceback" not in log


@contextmanager
def half_sent(url: str) -> Iterator[socket.socket]:
    """A connection on which a server has begun to answer a request that lacks its last byte."""
    body = b'{"in_features": 64, "out_features": 10}'
    head = (
        f"POST /models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    with connected(url) as connection:
        # The server says that it goes on when the request is with the route.
        connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body[:-1])
        yield connection


def connected(url: str) -> socket.socket:
    """A bare connection to a server."""
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS)


def listens(url: str) -> bool:
    """Whether a server takes new connections."""
    try:
        connected(url).close()
    except ConnectionError:
        return False
    return True
