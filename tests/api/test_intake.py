"""Bodies under way are counted as they come; however many are sent at once, the service holds no more than it may."""

import socket
import threading
import time
from contextlib import ExitStack

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.intake import SMALL_BYTES, Intake
from tests.memory import resident
from tests.running import Service, as_process, in_thread, until

MIB = 2**20


async def _nothing() -> dict[str, object]:
    return {"type": "http.request", "body": b""}


def test_small_bodies_are_received_as_they_are() -> None:
    intake = Intake(1)
    for headers in ({}, {b"content-length": b"0"}, {b"content-length": str(SMALL_BYTES).encode()}):
        with intake.of(headers, _nothing) as receive:
            assert receive is _nothing


@given(st.binary(max_size=12))
def test_what_does_not_say_that_it_is_small_is_counted(length: bytes) -> None:
    small = length.isdigit() and len(length) < 7 and int(length) <= SMALL_BYTES
    with Intake(1).of({b"content-length": length}, _nothing) as receive:
        assert (receive is _nothing) == small
    with Intake(1).of({b"content-length": length, b"transfer-encoding": b"chunked"}, _nothing) as receive:
        assert receive is not _nothing


def begun(service: Service, mib: int) -> socket.socket:
    """An upload of which so much has been sent, and one more byte is to come."""
    host, port = service.url.removeprefix("http://").split(":")
    raw = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST /bases HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-safetensors\r\n"
    raw.sendall(f"{head}Content-Length: {mib * MIB + 1}\r\n\r\n".encode() + bytes(mib * MIB))
    return raw


def test_uploads_beyond_the_room_are_503_and_the_room_comes_back() -> None:
    with in_thread(json_body_mib=2, binary_body_mib=4, bodies_mib=8) as service, ExitStack() as open_ones:
        first, second = (open_ones.enter_context(begun(service, 4 - 1)) for _ in range(2))
        time.sleep(0.3)
        refused = service.http.post(
            "/bases", content=bytes(3 * MIB), headers={"Content-Type": "application/x-safetensors"}
        )
        assert (refused.status_code, refused.json()["reason"]) == (503, "bodies-full")
        assert refused.headers["Retry-After"]
        assert 'lora_shed_total{reason="bodies-full"} 1.0' in service.http.get("/metrics").text
        model = service.http.post("/models", json={"in_features": 4, "out_features": 2, "rank": 1}).json()["id"]
        assert service.http.post(f"/models/{model}/forward", json={"inputs": [1] * 4}).status_code == 200
        first.sendall(b"x")  # no base at all
        assert first.recv(4_096).startswith(b"HTTP/1.1 422 ")
        second.close()  # its client leaves

        def taken() -> bool:
            answer = service.http.post("/bases", content=bytes(3 * MIB), headers=refused.request.headers)
            return answer.status_code == 422

        until(taken)


@pytest.mark.timeout(120)
def test_forty_uploads_at_once_take_no_more_memory_than_they_may() -> None:
    with as_process(LORA_BODIES_MIB="64", LORA_BINARY_BODY_MIB="32") as (process, url):
        httpx.get(f"{url}/models")
        before = resident(process.pid)
        seen: list[int] = []

        def send() -> None:
            with httpx.Client(base_url=url, timeout=60) as http:
                headers = {"Content-Type": "application/x-safetensors"}
                seen.append(http.post("/bases", content=bytes(31 * MIB), headers=headers).status_code)

        threads = [threading.Thread(target=send) for _ in range(40)]
        for thread in threads:
            thread.start()
        most = before
        while any(thread.is_alive() for thread in threads):
            most = max(most, resident(process.pid))
            time.sleep(0.005)
        assert set(seen) <= {422, 503}
        assert len(seen) == 40
        assert most - before < 4 * 64 * MIB  # with copies, of 1,240 MiB that are sent
