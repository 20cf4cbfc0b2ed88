"""A request is sent again where that helps, with one key, and never where it could do something twice."""

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from service import errors
from service.api.problems import body_of, status_of
from service.client import Client, Problem, Unreachable
from service.client.calls import Call, delete, get, patch, post, put
from service.client.retries import MAX_RETRY_AFTER_SECONDS, MAX_SECONDS, pause
from service.errors import ServiceError
from tests.client.conftest import Connect
from tests.client.servers import answer, breaking, scripted
from tests.running import Service, until

LIMITS = answer("200 OK", b'{"durable": false, "limits": {}}')
FULL = errors.TemporaryReducedCapacity("there is too much to do", reason="queue-full")
IN_FLIGHT = errors.IdempotencyInFlight("a request with this key is under way")
BUSY = errors.ModelBusy("a job is under way")
MODEL = {"in_features": 4, "out_features": 2, "rank": 2}


def refused(error: ServiceError, **headers: str) -> bytes:
    """The answer that the service gives to say no."""
    return answer(f"{status_of(type(error))} No", body_of(error, "/", "r1"), **headers)


@pytest.mark.parametrize(
    "trouble",
    [None, refused(FULL, Retry_After="0"), answer("503 Full", b"<html>"), answer("429 Slow"), answer("504 Late")],
    ids=["broken", "full", "a proxy's", "too fast", "late"],
)
def test_what_passes_is_tried_again_with_the_same_key(connect: Connect, trouble: bytes | None) -> None:
    with scripted(trouble, trouble, answer("422 No")) as server, pytest.raises(Problem, match="422"):
        connect(server.url).create(**MODEL)
    assert len(server.requests) == 3
    (key,) = set(server.headers("Idempotency-Key"))
    assert key
    assert len({body for _, body in server.requests}) == 1


def test_each_request_has_a_key_of_its_own(connect: Connect) -> None:
    with scripted(answer("422 No")) as server:
        client = connect(server.url)
        for _ in range(2):
            with pytest.raises(Problem):
                client.train("mdl_x")
    assert len(set(server.headers("Idempotency-Key"))) == 2


@pytest.mark.parametrize(
    ("status", "error"), [(409, BUSY), (422, errors.Validation("no")), (404, errors.NotFound("no")), (500, None)]
)
def test_what_does_not_pass_is_asked_once(connect: Connect, status: int, error: ServiceError | None) -> None:
    said = answer("500 Broken") if error is None else refused(error)
    with scripted(said) as server, pytest.raises(Problem) as caught:
        connect(server.url).limits()
    assert (caught.value.status, len(server.requests)) == (status, 1)


def test_it_gives_up_after_max_retries(connect: Connect) -> None:
    for most in (0, 1):
        with scripted(refused(FULL)) as server, pytest.raises(errors.TemporaryReducedCapacity, match="too much to do"):
            connect(server.url, max_retries=most).limits()
        assert len(server.requests) == most + 1
    with scripted(None) as server, pytest.raises(Unreachable, match="does not answer"):
        connect(server.url, max_retries=1).limits()
    assert len(server.requests) == 2


def test_it_waits_as_long_as_the_service_asks(connect: Connect) -> None:
    with scripted(refused(FULL, Retry_After="1"), LIMITS) as server:
        began = time.monotonic()
        connect(server.url).limits()
    assert 1 <= time.monotonic() - began < 5
    assert len(server.requests) == 2


def test_a_request_that_is_under_way_is_asked_after_until_it_has_its_answer(connect: Connect) -> None:
    with scripted(*[refused(IN_FLIGHT, Retry_After="1")] * 3, answer("422 No")) as server, pytest.raises(Problem):
        connect(server.url, max_retries=1).create(**MODEL)
    assert len(server.requests) == 4


def test_a_service_that_says_nothing_in_time_does_not_answer(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"{url} does not answer: .*ime"):
            connect(url, timeout=0.1, max_retries=1).limits()


def test_what_is_made_by_a_request_whose_answer_is_lost_is_made_once(connect: Connect, service: Service) -> None:
    with breaking(service.url, 0) as url:
        model = connect(url).create(**MODEL, name="made once")
    client = connect(service.url)
    assert list(client.models(name="made once")) == [model]
    with breaking(service.url, 0) as url:
        job = connect(url).train(model, wait=20, epochs=2)
    assert job.ended
    assert [each.id for each in client.jobs(model)] == [job.id]
    client.delete(model)


def test_what_is_deleted_by_a_request_whose_answer_is_lost_is_gone(connect: Connect, service: Service) -> None:
    model = connect(service.url).create(**MODEL)
    with breaking(service.url, 0) as url:
        connect(url).delete(model)
    with pytest.raises(errors.ModelNotFound):
        connect(service.url).delete(model)


def test_an_adapter_whose_answer_is_lost_is_not_brought_again(
    connect: Connect, service: Service, tmp_path: Path
) -> None:
    client = connect(service.url)
    model = client.create(**MODEL)
    _, file = client.adapter(model)
    with breaking(service.url, 0) as url, pytest.raises(Unreachable):
        connect(url).put_adapter(model, file)
    until(lambda: client.model(model).version == 1)
    assert [each.version for each in client.versions(model)] == [1, 0]


def test_readiness_is_asked_once(connect: Connect, service: Service) -> None:
    assert connect(service.url).ready()
    with scripted(refused(errors.NotReady("workers: starting"))) as server:
        assert connect(server.url).ready() is False
    assert len(server.requests) == 1
    with scripted(answer("404 Not Found")) as server, pytest.raises(Problem, match="404"):
        connect(server.url).ready()


def test_the_key_and_the_headers_go_with_every_request(connect: Connect) -> None:
    with scripted(LIMITS) as server:
        client = connect(server.url + "/", api_key="secret", headers={"X-Team": "a"})
        client.limits()
        assert server.requests[0][0].startswith("GET /limits HTTP/1.1")
        assert server.headers("Authorization") == ["Bearer secret"]
        assert server.headers("X-Team") == ["a"]
        assert "secret" not in repr(client)
        connect(server.url).limits()
        assert server.headers("Authorization")[1] is None


def test_a_client_of_httpx_that_is_given_is_used_and_left_open() -> None:
    with scripted(LIMITS) as server, httpx.Client(headers={"X-From": "mine"}) as http:
        with Client(server.url, http_client=http) as client:
            client.limits()
        assert server.headers("X-From") == ["mine"]
        assert not http.is_closed


def told(status: int, **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=given, request=httpx.Request("GET", "http://x"))


def test_the_pauses_grow_up_to_a_limit_and_are_never_alike() -> None:
    pauses = [pause(get("/x"), told(503), tried, 99) for tried in range(12)]
    for tried, seconds in enumerate(pauses):
        longest = min(0.5 * 2**tried, MAX_SECONDS)
        assert seconds is not None
        assert longest * 0.75 <= seconds <= longest
    assert len(set(pauses)) == 12


def in_seconds(seconds: float) -> str:
    """A date of HTTP that far from now."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        (lambda: "3", 3, 4),
        (lambda: "3600", MAX_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS * 4 / 3),
        (lambda: in_seconds(20), 15, 80 / 3),
        (lambda: in_seconds(1_000), MAX_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS * 4 / 3),
        (lambda: "soon", 0, 0.5),
        (lambda: in_seconds(-1_000), 0, 0.5),
    ],
    ids=["seconds", "too many seconds", "a date", "a date too far", "not a number", "a date of the past"],
)
def test_retry_after_is_seconds_or_a_date(retry_after: Callable[[], str], least: float, most: float) -> None:
    seconds = pause(get("/x"), told(503, Retry_After=retry_after()), 0, 2)
    assert seconds is not None
    assert least <= seconds <= most


REPEATABLE = [get("/x"), delete("/x"), patch("/x", {}), post("/x", {}).once()]
PASSING = [httpx.ReadError("x"), httpx.ReadTimeout("x"), httpx.ConnectError("x"), told(504)]


@pytest.mark.parametrize("call", REPEATABLE, ids=lambda call: call.method)
@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_can_be_repeated_is(call: Call, error: httpx.RequestError | httpx.Response) -> None:
    assert pause(call, error, 0, 2) is not None
    assert pause(call, error, 2, 2) is None


def test_what_cannot_be_repeated_is_sent_again_only_where_it_did_not_arrive() -> None:
    call = put("/x", b"")
    assert [pause(call, each, 0, 2) for each in (httpx.ReadError("x"), httpx.ReadTimeout("x"), told(504))] == [None] * 3
    assert all(pause(call, each, 0, 2) for each in (httpx.ConnectError("x"), httpx.ConnectTimeout("x"), told(503)))
    perhaps_stored = httpx.Response(503, content=body_of(errors.StorageUnavailable("not known"), "/x", "r1"))
    assert pause(call, perhaps_stored, 0, 2) is None
    assert pause(get("/x"), perhaps_stored, 0, 2) is not None


def test_what_is_wrong_with_the_address_is_not_tried_again() -> None:
    assert pause(get("/x"), httpx.UnsupportedProtocol("x"), 0, 2) is None
