"""Every line says which request it is about, to people as text and to programs as JSON."""

import json
import logging
import signal
import socket
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import logs
from tests.cli.terminal import on_terminal
from tests.running import DEADLINE_SECONDS, as_process

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("given", "trace"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"cc-{TRACE}-{SPAN}-01-what-may-come", TRACE),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_a_trace_is_taken_as_the_standard_says(given: str, trace: str | None) -> None:
    assert logs.trace_of(given.encode()).get("trace_id") == trace


@given(st.binary(max_size=80))
def test_any_header_at_all_is_a_trace_or_none(header: bytes) -> None:
    assert set(logs.trace_of(header)) in (set(), {"trace_id", "parent_id"})


def test_off_a_terminal_each_request_is_a_line_of_json() -> None:
    key = "k" * 32
    with as_process(LORA_LOG_LEVEL="info", LORA_API_KEYS=key) as (process, url):
        headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "mine", "traceparent": f"00-{TRACE}-{SPAN}-01"}
        assert httpx.get(f"{url}/models?search={key}", headers=headers).status_code == 200
        refused = httpx.get(f"{url}/models/nothing", headers=headers)
        httpx.get(f"{url}/livez")
        httpx.get(f"{url}/models")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert key not in said
    assert refused.json()["trace_id"] == TRACE
    seen = [line for line in lines(said) if line["event"] == "request"]
    assert [(line["method"], line["path"], line["status"]) for line in seen] == [
        ("GET", "/models", 200),
        ("GET", "/models/nothing", 404),
        ("GET", "/models", 401),
    ]
    assert {(line["request_id"], line["trace_id"], line["parent_id"]) for line in seen[:2]} == {("mine", TRACE, SPAN)}
    assert seen[0]["key"].startswith("key-")
    assert seen[2]["key"] is None
    assert all(line["level"] == "info" and line["timestamp"] and line["ms"] >= 0 for line in seen)


def test_without_being_asked_only_what_is_wrong_is_logged() -> None:
    with as_process() as (process, url):
        httpx.get(f"{url}/models")
        assert no_http(url).startswith(b"HTTP/1.1 400 ")  # with which anybody could fill a disk
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert said == ""


def test_who_debugs_sees_what_is_no_request() -> None:
    with as_process(LORA_LOG_LEVEL="debug") as (process, url):
        no_http(url)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert logs.NO_HTTP in [line["event"] for line in lines(said)]


def no_http(url: str) -> bytes:
    """What is answered to something that is no HTTP."""
    where = httpx.URL(url)
    with socket.create_connection((where.host, where.port or 80), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        return connection.recv(1_024)


def test_no_line_has_its_text_once_more_in_colours() -> None:
    with as_process(LORA_LOG_LEVEL="info") as (process, _):
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=DEADLINE_SECONDS)
    seen = lines(said)
    assert "uvicorn.error" in {line["logger"] for line in seen}
    assert not [line for line in seen if "color_message" in line]
    assert "\\u001b" not in said


def test_on_a_terminal_a_line_is_for_people() -> None:
    with on_terminal("serve", "--port", "0", LORA_LOG_LEVEL="info") as terminal:
        terminal.shows("lora-service is ready at (http://[0-9.:]+)")
        url = terminal.seen.split("ready at ")[1].split()[0]
        httpx.get(f"{url}/models", headers={"X-Request-Id": "mine"})
        terminal.shows(r"info.*request.*path=/models.*request_id=mine")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ended() == 0


def as_ray(line: logging.LogRecord) -> bool:
    """Add what Ray adds to each record."""
    vars(line).setdefault("_ray_timestamp_ns", 1)
    return True


def test_a_trace_of_an_error_is_in_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    root, log = logging.getLogger(), logging.getLogger("service.x")
    log.addFilter(as_ray)
    before, level = root.handlers[:], root.level
    logs.REQUEST.set({"request_id": "r1"})
    try:
        logs.configure("warning")
        try:
            raise ZeroDivisionError("a bug")
        except ZeroDivisionError:
            log.exception("it broke", extra={"size": 3})
        log.info("not worth a line")
    finally:
        log.removeFilter(as_ray)
        root.handlers[:] = before
        root.setLevel(level)
        logs.REQUEST.set(None)
    (line,) = lines(capfd.readouterr().err)
    assert (line["event"], line["level"], line["logger"], line["size"]) == ("it broke", "error", "service.x", 3)
    assert line["request_id"] == "r1"
    assert "_ray_timestamp_ns" not in line
    assert "ZeroDivisionError: a bug" in line["exception"]
