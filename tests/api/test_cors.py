"""Pages of the origins that are listed may call the service and read what it answers, and others may not."""

from collections.abc import Iterator

import httpx
import pytest

from service.api.cors import METHODS, READ, SENT
from service.api.openapi import document
from service.client.calls import bearer
from service.settings import SettingsError, load
from tests.running import Service, in_thread

KEY = "k" * 32
ONE, OTHER, UNLISTED = "https://one.example", "http://localhost:3000", "https://elsewhere.example"
# What any page may send and read, where it may call at all (Fetch, 2.2.2).
ANY_SENT, ANY_READ = {"accept", "content-type"}, {"cache-control", "content-length", "content-type"}
OF_CORS = "access-control-"


@pytest.fixture(scope="module")
def open_to() -> Iterator[Service]:
    """A service with a key, and two origins that may call it."""
    with in_thread(api_keys=KEY, allowed_origins=f"{ONE}, {OTHER}", sse_streams=1) as running:
        running.wait_for_workers()
        running.http.headers.update({**bearer(KEY), "Origin": ONE})
        yield running


def preflight(service: Service, origin: str, method: str = "POST", headers: str = "authorization") -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return httpx.options(f"{service.url}/models", headers={"Origin": origin, **asked})


def words(header: str) -> set[str]:
    return {word.strip().lower() for word in header.split(",")}


def may_be_read(answer: httpx.Response, origin: str) -> None:
    """A page of this origin may read the answer, and all of its headers."""
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "origin" in words(answer.headers["Vary"])
    own = {"date", "vary", "connection", "transfer-encoding"}  # of the way, and not of the answer
    told = {name for name in answer.headers if not name.startswith(OF_CORS)} - own
    assert told - ANY_READ <= words(answer.headers["Access-Control-Expose-Headers"])


@pytest.mark.parametrize("origin", [ONE, OTHER])
@pytest.mark.parametrize("method", METHODS)
def test_a_preflight_is_answered_without_a_key(open_to: Service, origin: str, method: str) -> None:
    answer = preflight(open_to, origin, method, ", ".join(SENT).lower() + ",content-type")
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert method.lower() in words(answer.headers["Access-Control-Allow-Methods"])
    assert {name.lower() for name in SENT} <= words(answer.headers["Access-Control-Allow-Headers"])
    assert "origin" in words(answer.headers["Vary"])


def test_a_preflight_for_what_the_api_does_not_know_is_refused(open_to: Service) -> None:
    assert preflight(open_to, ONE, "TRACE").status_code == 400
    assert preflight(open_to, ONE, headers="x-whatever").status_code == 400


def test_the_api_reads_and_sends_no_header_that_a_page_may_not() -> None:
    page = document()
    operations = [operation for methods in page["paths"].values() for operation in methods.values()]
    given = [each for operation in operations for each in operation["parameters"] if each.get("in") == "header"]
    assert {each["name"].lower() for each in given} - ANY_SENT <= {name.lower() for name in SENT}
    answers = [answer for operation in operations for answer in operation["responses"].values()]
    assert {name for answer in answers for name in answer["headers"]} <= {*READ}
    assert {method.upper() for methods in page["paths"].values() for method in methods} <= {*METHODS}


def test_answers_and_errors_may_be_read_with_all_their_headers(open_to: Service) -> None:
    http = open_to.http
    made = http.post(
        "/models", json={"in_features": 4, "out_features": 2, "rank": 1}, headers={"Idempotency-Key": "one"}
    )
    at = made.headers["Location"]
    trained = http.post(f"{at}/train", json={"epochs": 1}, headers={"Prefer": "wait=30"})
    again = http.post(
        "/models", json={"in_features": 4, "out_features": 2, "rank": 1}, headers={"Idempotency-Key": "one"}
    )
    assert again.headers["Idempotency-Replayed"] == "true"
    sent = {
        201: made,
        202: http.post(f"{at}/train", json={"epochs": 1}),
        304: http.get(at, headers={"If-None-Match": http.get(at).headers["ETag"]}),
        400: http.post("/models", content=b"{", headers={"Content-Type": "application/json"}),
        401: http.get("/models", headers={"Authorization": "Bearer none"}),
        404: http.get("/models/nothing"),
        405: http.put("/models"),
        412: http.patch(at, json={"name": "a"}, headers={"If-Match": '"no"'}),
        415: http.post("/models", content=b"{}", headers={"Content-Type": "text/plain"}),
        422: http.post(f"{at}/forward", json={"inputs": [1]}),
        200: http.post(f"{at}/forward", json={"inputs": [1, 2, 3, 4]}),
    }
    for status, answer in sent.items():
        assert answer.status_code == status, answer.text
    csv = http.get(f"/jobs/{trained.json()['id']}/losses.csv")
    for answer in (*sent.values(), trained, again, csv, http.get("/metrics"), http.get("/models?limit=1")):
        may_be_read(answer, ONE)


def test_event_streams_may_be_read_and_so_may_that_there_are_too_many(open_to: Service) -> None:
    with open_to.http.stream("GET", "/events", headers={"Origin": OTHER}) as stream:
        may_be_read(stream, OTHER)
        lines = stream.iter_lines()  # which would end the stream, were it let go
        assert next(lines).startswith("retry:")
        refused = open_to.http.get("/events")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        may_be_read(refused, ONE)


def test_an_origin_that_is_not_listed_is_told_nothing_and_changes_nothing(open_to: Service) -> None:
    asked = preflight(open_to, UNLISTED)
    assert asked.status_code == 400
    read = open_to.http.get("/models", headers={"Origin": UNLISTED})
    assert read.status_code == 200  # which its browser keeps from it
    body = {"in_features": 4, "out_features": 2}
    refused = open_to.http.post("/models", json=body, headers={"Origin": UNLISTED})
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/cross-origin")
    for answer in (asked, read, refused):
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "origin" in words(answer.headers["Vary"])  # a cache must not give it to a page that is listed


def test_a_service_without_origins_knows_none(service: Service) -> None:
    assert preflight(service, ONE).status_code == 405
    answer = httpx.get(f"{service.url}/models", headers={"Origin": ONE})
    assert not [name for name in answer.headers if name.startswith(OF_CORS) or name == "vary"]


@pytest.mark.parametrize(
    "given", ["*", "null", "example.org", "https://example.org/", "https://Example.org", "https://a.example, https://*"]
)
def test_what_is_no_origin_stops_the_start(given: str) -> None:
    with pytest.raises(SettingsError, match=r"LORA_ALLOWED_ORIGINS is .* is no origin; one is as browsers write it"):
        load(allowed_origins=given)
