"""A client that takes too long loses its connection, and holds up nobody; one that is merely slow does not."""

import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from service.api.patience import REST_SECONDS, Part, Patience, Stage, Waits
from tests.running import Service, in_thread

PATIENCE = Patience(head_seconds=10, body_seconds=60, stall_seconds=30)
DEADLINE_SECONDS = 20


@pytest.fixture(scope="module")
def hasty() -> Iterator[Service]:
    """A service with little patience."""
    with in_thread(head_seconds=1, body_seconds=1, stall_seconds=1) as running:
        yield running


def connected(service: Service) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS)


def rest(raw: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    parts = []
    try:
        while part := raw.recv(65_536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def test_each_part_has_its_time() -> None:
    head, body, nothing = (Stage(part, 1) for part in (Part.HEAD, Part.BODY, Part.NOTHING))
    waits = Waits(0, head)
    assert waits.too_long(10, head, 0, PATIENCE) is Part.NOTHING
    assert waits.too_long(10.1, head, 0, PATIENCE) is Part.HEAD
    assert waits.too_long(20, body, 0, PATIENCE) is Part.NOTHING
    assert waits.too_long(80, body, 0, PATIENCE) is Part.NOTHING
    assert waits.too_long(80.1, body, 0, PATIENCE) is Part.BODY
    more = Stage(Part.BODY, 1, 64 * 1024 * 100)  # for which there are a hundred seconds more
    assert waits.too_long(180, more, 0, PATIENCE) is Part.NOTHING
    assert waits.too_long(180.1, more, 0, PATIENCE) is Part.BODY
    assert waits.too_long(200, nothing, 0, PATIENCE) is Part.NOTHING
    assert waits.too_long(10_000, nothing, 0, PATIENCE) is Part.NOTHING
    rests = Stage(Part.NEXT, 1)
    assert waits.too_long(10_001, rests, 0, PATIENCE) is Part.NOTHING
    assert waits.too_long(10_001 + REST_SECONDS + 0.1, rests, 0, PATIENCE) is Part.NEXT


def test_each_request_has_its_own_time() -> None:
    waits = Waits(0, Stage(Part.HEAD, 0))
    for turn in range(1, 100):
        assert waits.too_long(5 * turn, Stage(Part.HEAD, turn), 0, PATIENCE) is Part.NOTHING


def test_an_answer_that_is_taken_bit_by_bit_has_all_the_time_there_is() -> None:
    nothing = Stage(Part.NOTHING, 1)
    waits = Waits(0, nothing)
    for second in range(100):
        assert waits.too_long(second, nothing, 1_000 - second, PATIENCE) is Part.NOTHING
    assert waits.too_long(129, nothing, 901, PATIENCE) is Part.NOTHING
    assert waits.too_long(129.1, nothing, 901, PATIENCE) is Part.ANSWER
    assert waits.too_long(130, nothing, 0, PATIENCE) is Part.NOTHING


def test_a_head_that_does_not_end_is_answered_with_408(hasty: Service) -> None:
    with connected(hasty) as raw:
        began = time.monotonic()
        raw.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\n")
        answer = rest(raw)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/request-timeout" in answer
    assert 0.9 < time.monotonic() - began < 4


def test_a_head_that_drips_is_no_better(hasty: Service) -> None:
    with connected(hasty) as raw:
        raw.sendall(b"GET /models HTTP/1.1\r\nX: ")
        raw.settimeout(0.1)
        for _ in range(100):
            raw.sendall(b"x")
            try:
                answer = raw.recv(65_536)
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("the connection was never closed")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_on_which_nothing_is_said_is_closed(hasty: Service) -> None:
    with connected(hasty) as raw:
        assert rest(raw) == b""


def test_a_body_that_does_not_end_is_answered_with_408_and_changes_nothing(hasty: Service) -> None:
    before = hasty.http.get("/models").json()
    with connected(hasty) as raw:
        head = b"POST /models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100"
        raw.sendall(head + b"\r\n\r\n{")
        assert rest(raw).startswith(b"HTTP/1.1 408 ")
    assert hasty.http.get("/models").json() == before


def test_a_client_that_takes_nothing_of_its_answer_is_let_go(hasty: Service) -> None:
    model = hasty.http.post("/models", json={"in_features": 2_048, "out_features": 2_048, "rank": 8}).json()["id"]
    with connected(hasty) as raw:
        raw.sendall(f"GET /models/{model}/weights HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(5)
        answer = rest(raw)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(answer) < 2_048 * 2_048 * 4


def test_a_connection_may_rest_between_requests_and_long_streams_go_on(hasty: Service) -> None:
    with httpx.Client(base_url=hasty.url) as http, http.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        time.sleep(3)
        hasty.http.post("/models", json={"in_features": 2, "out_features": 2, "rank": 1})
        model = hasty.http.get("/models?order=desc&limit=1").json()["items"][0]["id"]
        hasty.http.post(f"/models/{model}/train", json={"epochs": 1})
        assert any("queued" in line for _, line in zip(range(20), lines, strict=False))


def test_a_connection_that_has_its_answer_may_ask_again_for_some_seconds_and_is_closed_then(hasty: Service) -> None:
    with connected(hasty) as raw:
        for _ in range(2):
            raw.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert raw.recv(65_536).startswith(b"HTTP/1.1 200 ")
            time.sleep(REST_SECONDS / 2)
        began = time.monotonic()
        assert rest(raw) == b""
        assert REST_SECONDS / 2 - 1 < time.monotonic() - began < REST_SECONDS + 5


def test_five_hundred_that_drip_hold_up_nobody(hasty: Service) -> None:
    model = hasty.http.post("/models", json={"in_features": 8, "out_features": 8, "rank": 1}).json()["id"]

    def slowest() -> float:
        times = []
        for _ in range(200):
            began = time.perf_counter()
            hasty.http.post(f"/models/{model}/forward", json={"inputs": [1] * 8}).raise_for_status()
            times.append(time.perf_counter() - began)
        return sorted(times)[-3]

    slowest()
    alone = slowest()
    idle = [connected(hasty) for _ in range(500)]
    try:
        for raw in idle:
            raw.sendall(b"GET /models HTTP/1.1\r\nX: ")
        assert slowest() < max(2 * alone, 0.05)  # a core may be another's for a moment
        assert all(rest(raw).startswith(b"HTTP/1.1 408 ") for raw in idle)
    finally:
        for raw in idle:
            raw.close()
