"""Nobody gets in without a key where keys are set, nor by a name or from a page that is not the service's own."""

import json
import re
import socket
from collections.abc import Iterator
from itertools import product

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.app import create_api
from service.api.guard import Guard
from service.api.keys import ANYBODY, Keys, Scope
from service.api.openapi import document
from service.cli.serve import must_be_guarded
from service.client.calls import bearer
from service.errors import BadHost, CrossOrigin, Forbidden, Unauthorized
from service.settings import SettingsError, load
from tests.running import Service, in_thread

WRITER, READER = "w" * 32, "r" * 32
SET = f"{WRITER}, {READER}:read"
# What the contract answers without a key, in its own words.
FREE = {
    "/", "/favicon.ico", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/docs", "/docs/oauth2-redirect",
    "/openapi.json", "/problems/{slug}", "/static/{name:path}",
}  # fmt: skip


@pytest.fixture(scope="module")
def locked() -> Iterator[Service]:
    """A service that asks for a key."""
    with in_thread(api_keys=SET) as running:
        running.wait_for_workers()
        running.http.headers.update(bearer(WRITER))
        yield running


def refused(answer: httpx.Response, status: int, slug: str) -> dict[str, object]:
    problem: dict[str, object] = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"/problems/{slug}"), answer.text
    assert answer.headers["X-Request-Id"] == problem["request_id"]
    return problem


def addresses() -> list[tuple[str, str]]:
    """Every operation on the page, and every route that the page leaves out."""
    told = [(method.upper(), path) for path, operations in document()["paths"].items() for method in operations]
    hidden = [("GET", str(getattr(route, "path", ""))) for route in create_api().routes]
    return sorted(each for each in {*told, *hidden} if each[1])


@pytest.mark.parametrize(("method", "path"), addresses())
def test_every_address_asks_for_a_key_but_the_open_ones(locked: Service, method: str, path: str) -> None:
    with httpx.Client(base_url=locked.url) as http:
        answer = http.request(method, re.sub(r"\{.*?\}", "x", path))
    if path in FREE:
        assert answer.status_code != 401
    else:
        problem = refused(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "Authorization: Bearer" in str(problem["detail"])


@pytest.mark.parametrize(
    "path", ["/nothing", "/models/", "//models", "/livez/", "/LIVEZ", "/livez/../models", "/v2/health/live/x"]
)
def test_what_is_no_address_asks_for_a_key_too(locked: Service, path: str) -> None:
    host, port = locked.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:  # a client would tidy the path up
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert raw.recv(65_536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", f"Basic {WRITER}", WRITER, f"Bearer {WRITER[:-1]}", f"Bearer {WRITER}x", "Bearer ü" * 9,
     f"Bearer {WRITER}:read", f"Bearer {SET}", "Bearer " + "w" * 8_000],
)  # fmt: skip
def test_what_is_none_of_the_keys_is_refused(locked: Service, given: str) -> None:
    headers = {"Authorization": given.encode("latin-1")}
    refused(httpx.get(f"{locked.url}/models", headers=headers), 401, "unauthorized")


def test_a_newline_in_an_open_address_asks_for_no_key(locked: Service) -> None:
    assert httpx.get(f"{locked.url}/problems/none%0A").status_code == 404


def test_a_key_in_the_address_is_none(locked: Service) -> None:
    for name in ("key", "api_key", "access_token", "token"):
        refused(httpx.get(f"{locked.url}/models", params={name: WRITER}), 401, "unauthorized")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_key_lets_in(locked: Service, scheme: str) -> None:
    assert httpx.get(f"{locked.url}/models", headers={"Authorization": f"{scheme} {WRITER}"}).status_code == 200


def test_a_key_that_reads_looks_and_runs_and_changes_nothing(locked: Service) -> None:
    http = locked.http
    model = http.post("/models", json={"in_features": 4, "out_features": 2, "rank": 1}).json()["id"]
    job = http.post(f"/models/{model}/train", json={"epochs": 1}, headers={"Prefer": "wait=30"}).json()["id"]
    x = {"inputs": [1, 2, 3, 4]}
    infer = {"inputs": [{"name": "inputs", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    with httpx.Client(base_url=locked.url, headers=bearer(READER)) as reading:
        for path in ("/models", f"/models/{model}", f"/jobs/{job}", "/limits", "/metrics", f"/models/{model}/weights"):
            assert reading.get(path).status_code == 200, path
        assert reading.post(f"/models/{model}/forward", json=x).status_code == 200
        assert reading.post("/forward", json={"items": [{"model_id": model, **x}]}).status_code == 200
        assert reading.post(f"/v2/models/{model}/infer", json=infer).status_code == 200
        assert reading.post(f"/models/{model}/rank-profile", json={}).status_code == 200
        for method, path in (
            ("POST", "/models"),
            ("POST", "/bases"),
            ("POST", "/datasets"),
            ("POST", "/sweeps"),
            ("POST", f"/models/{model}/train"),
            ("POST", f"/models/{model}/rollback"),
            ("PUT", f"/models/{model}/adapter"),
            ("PATCH", f"/models/{model}"),
            ("DELETE", f"/models/{model}"),
            ("POST", f"/jobs/{job}/cancel"),
            ("DELETE", f"/jobs/{job}"),
        ):
            assert "scope read" in str(refused(reading.request(method, path), 403, "forbidden")["detail"])
    assert http.get(f"/models/{model}").json()["version"] == 1


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p in addresses() if m != "GET"])
def test_a_key_that_reads_changes_nothing_at_any_address(locked: Service, method: str, path: str) -> None:
    answer = httpx.request(method, locked.url + re.sub(r"\{.*?\}", "x", path), headers=bearer(READER))
    runs = path.endswith(("/forward", "/rank-profile", "/infer"))
    assert (answer.status_code == 403) != runs


def test_a_repeat_is_one_only_of_the_same_key(locked: Service) -> None:
    body, headers = {"in_features": 2, "out_features": 2, "rank": 1}, {"Idempotency-Key": "the same"}
    with in_thread(api_keys=f"{WRITER},{'v' * 32}") as service:
        first, again, other = (
            httpx.post(f"{service.url}/models", json=body, headers={**headers, **bearer(key)})
            for key in (WRITER, WRITER, "v" * 32)
        )
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    assert ("Idempotency-Replayed" in again.headers, "Idempotency-Replayed" in other.headers) == (True, False)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "x@y"]
)
def test_a_name_that_is_another_is_refused_but_by_the_probes(service: Service, host: str) -> None:
    port = service.url.rpartition(":")[2]
    for named in (host, f"{host}:{port}"):
        problem = refused(httpx.get(f"{service.url}/models", headers={"Host": named}), 400, "bad-host")
        assert "LORA_ALLOWED_HOSTS" in str(problem["detail"])
        assert httpx.get(f"{service.url}/livez", headers={"Host": named}).status_code == 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST:80", "[::1]:8000", "[::1]", "10.1.2.3:8000", "lora:8000", "x"]
)
def test_addresses_and_localhost_are_let_in(service: Service, host: str) -> None:
    assert httpx.get(f"{service.url}/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["a.example.org", "A.B.Example.org:8000", "a.example.org.", "lora.internal"])
def test_any_name_below_one_that_is_listed_is_let_in(host: str) -> None:
    guard = Guard(load(allowed_hosts="*.example.org, lora.internal"))
    guard.caller("GET", "/models", {b"host": host.encode()})


@pytest.mark.parametrize("host", ["example.org", "anexample.org", "a.example.org.evil.example", "a.lora.internal"])
def test_a_name_beside_or_above_those_that_are_listed_is_refused(host: str) -> None:
    guard = Guard(load(allowed_hosts="*.example.org, lora.internal"))
    with pytest.raises(BadHost):
        guard.caller("GET", "/models", {b"host": host.encode()})


@pytest.mark.parametrize(("method", "path"), [*product(["POST", "PUT", "PATCH", "DELETE"], ["/models", "/models/x"])])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_page_from_elsewhere_changes_nothing(service: Service, method: str, path: str, origin: str) -> None:
    refused(httpx.request(method, service.url + path, headers={"Origin": origin}), 403, "cross-origin")


def test_the_own_page_and_those_listed_may(service: Service) -> None:
    body = {"in_features": 2, "out_features": 2, "rank": 1}
    assert httpx.post(f"{service.url}/models", json=body, headers={"Origin": service.url}).status_code == 201
    assert httpx.get(f"{service.url}/models", headers={"Origin": "https://evil.example"}).status_code == 200
    guard = Guard(load(allowed_origins="https://a.example, https://b.example", allowed_hosts="lora,*"))
    for origin in (b"https://a.example", b"https://b.example"):
        guard.caller("POST", "/models", {b"host": b"anything", b"origin": origin})
    with pytest.raises(CrossOrigin):
        guard.caller("POST", "/models", {b"host": b"lora", b"origin": b"https://c.example"})


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=60), st.text(max_size=30))
def test_whoever_makes_up_a_head_is_refused(host: bytes, origin: bytes, authorization: bytes, path: str) -> None:
    headers = {b"host": host, b"origin": origin, b"authorization": authorization}
    with pytest.raises((BadHost, CrossOrigin, Unauthorized)):
        Guard(load(api_keys=SET)).caller("POST", path, headers)


def test_only_hashes_of_keys_are_kept() -> None:
    keys = Keys(load(api_keys=SET))
    assert WRITER not in repr(vars(keys))
    caller = keys.caller(f"Bearer {READER}".encode())
    assert (caller.scope, READER[:8] in caller.name) == (Scope.READ, False)
    assert Keys(load()).caller(b"") is ANYBODY


def test_no_text_at_all_is_no_key() -> None:
    assert load(api_keys="").api_keys is None
    with pytest.raises(SettingsError, match="it asks nobody for a key"):
        must_be_guarded(load(api_keys="", host="0.0.0.0"))


@pytest.mark.parametrize("given", [" ", " , ", "short", f"{WRITER},short", f"{'é' * 20}", ":read", "x" * 15 + ":read"])
def test_weak_keys_stop_the_start_and_are_not_shown(given: str) -> None:
    with pytest.raises(SettingsError, match="LORA_API_KEYS is wrong: ") as wrong:
        load(api_keys=given)
    assert not given.strip(" ,") or given not in str(wrong.value)


def test_a_key_that_may_not_is_told_from_one_that_is_none() -> None:
    guard = Guard(load(api_keys=SET))
    reader = {b"host": b"localhost", b"authorization": f"Bearer {READER}".encode()}
    assert guard.caller("GET", "/models", reader).scope is Scope.READ
    with pytest.raises(Forbidden):
        guard.caller("DELETE", "/models/x", reader)


def test_the_page_of_the_api_says_that_there_are_keys(locked: Service) -> None:
    told = json.loads(httpx.get(f"{locked.url}/openapi.json").text)
    assert told["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "401" in told["paths"]["/models"]["post"]["responses"]
    assert "401" not in told["paths"]["/livez"]["get"]["responses"]
