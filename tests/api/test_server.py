"""The server at its socket: what it does with bytes that are no request, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from service.api.server import MAX_HEAD_BYTES
from tests.running import Service, as_process, in_thread, until

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


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
        ("a header that never ends", [GET + b"X: ", *[b"a" * 4_096] * 10], b"431"),
        ("100,000 headers", [GET, *[b"X: 1\r\n" * 100] * 1_000], b"431"),
        ("a URL of 1 MiB", [b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n\r\n"], b"414"),
        ("random bytes", [os.urandom(512)], b"400"),
        ("a TLS hello", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)], b"400"),
        ("HTTP/2", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], b"400"),
        ("a negative length", [b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"], b"400"),
        ("two lengths", [b"POST /models HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"], b"400"),
        (
            "length and chunks",
            [b"POST /models HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
            b"400",
        ),
        ("NUL in the path", [b"GET /models/\x00 HTTP/1.1\r\nHost: x\r\n\r\n"], b"400"),
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
    head = b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
    answer = exchange(service, head)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"/problems/too-large" in answer


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    answer = exchange(service, (GET + b"\r\n") * 99 + GET + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 100


def test_one_byte_at_a_time_is_still_a_request(service: Service) -> None:
    request = GET + b"Connection: close\r\n\r\n"
    assert exchange(service, *[request[i : i + 1] for i in range(len(request))]).startswith(b"HTTP/1.1 200")


def test_clients_that_leave_are_no_errors(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    port = int(service.url.rpartition(":")[2])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert service.http.get("/livez").status_code == 200
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_status_0_and_its_workers_with_it(sent: signal.Signals) -> None:
    with as_process() as (process, url):
        until(lambda: children(process.pid))
        workers = children(process.pid)
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        process.send_signal(sent)
        assert process.wait(15) == 0
        until(lambda: not any(alive(worker) for worker in workers), 5)


def test_a_kill_of_the_server_alone_leaves_no_worker_behind() -> None:
    with as_process(LORA_WORKERS="2") as (process, url):
        until(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        with httpx.Client(base_url=url) as http:
            model = http.post("/models", json={"in_features": 64, "out_features": 10}).json()
            job = http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 1}).json()
            until(lambda: http.get(f"/jobs/{job['id']}").json()["state"] == "running")
        process.send_signal(signal.SIGKILL)
        process.wait(5)
        until(lambda: not any(alive(worker) for worker in workers), 5)


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
        assert process.wait(15) == 0


def test_requests_under_way_are_answered_before_the_server_leaves() -> None:
    body = bytes(4 * 64 * 20_000)
    with as_process() as (process, url), httpx.Client(base_url=url, timeout=20) as http:
        model = http.post("/models", json={"in_features": 64, "out_features": 64}).json()
        answers: list[int] = []

        def ask() -> None:
            headers = {"Content-Type": "application/octet-stream"}
            answers.append(httpx.post(f"{url}/models/{model['id']}/forward", content=body, headers=headers).status_code)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) >= 1)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert answers.count(200) >= 1
        assert process.wait(15) == 0


def test_a_port_in_use_is_one_line_and_no_trace() -> None:
    with in_thread() as service:
        port = service.url.rpartition(":")[2]
        command = [sys.executable, "-m", "service", "serve", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


def children(pid: int) -> list[int]:
    """The processes that the threads of a process have started."""
    return [
        int(child) for listed in Path(f"/proc/{pid}/task").glob("*/children") for child in listed.read_text().split()
    ]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
