"""The query of an address: what a route does not know is refused, and said to be."""

import re
from collections.abc import Iterator

import httpx
import pytest

from service.api import openapi
from tests.running import Service

NOBODY = "mdl_" + "0" * 26


def asked() -> Iterator[tuple[str, str, list[str]]]:
    """(method, path, query parameters) of every operation."""
    for path, operations in openapi.document()["paths"].items():
        for method, operation in operations.items():
            names = [given["name"] for given in operation["parameters"] if given.get("in") == "query"]
            yield method, re.sub("{.+?}", NOBODY, path), names


def detail(answer: httpx.Response) -> str:
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "/problems/validation")
    return str(problem["detail"])


@pytest.mark.parametrize(("method", "path", "names"), list(asked()))
def test_every_operation_says_which_parameters_it_has(
    http: httpx.Client, method: str, path: str, names: list[str]
) -> None:
    if path == f"/models/{NOBODY}/forward":  # which looks for its model first
        path = path.replace(NOBODY, http.post("/models", json={"in_features": 4, "out_features": 4}).json()["id"])
    said = detail(http.request(method, path, params={"zzz": "1"}))
    there_are = f"; the parameters are {', '.join(names)}" if names else ", which takes none"
    assert said == f"zzz is not a query parameter of this address{there_are}"


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("GET", "/models?lmit=3", "lmit is not a query parameter of this address; did you mean limit?"),
        ("GET", "/jobs?status=failed", "did you mean state?"),
        ("POST", "/datasets?keep_row=false", "did you mean keep_rows?"),
        ("POST", f"/models/{NOBODY}/train?wait=3", "which takes none"),
        ("GET", "/v2?zzz", "which takes none"),
        ("GET", "/livez?zzz=1", "which takes none"),
        ("GET", "/jobs?state=failed&state=queued", "state is given 2 times in the address; it must be given once"),
        ("GET", "/readyz?verbose&verbose", "verbose is given 2 times"),
        ("GET", f"/models?{'z' * 99}=1", f"{'z' * 59}… is not"),
    ],
)
def test_what_a_route_does_not_know_is_named_with_what_was_meant(
    http: httpx.Client, method: str, path: str, says: str
) -> None:
    assert says in detail(http.request(method, path))


def test_every_wrong_parameter_is_pointed_to(http: httpx.Client) -> None:
    problem = http.get("/models?page=1&limit=2&limit=3&order=desc").json()
    assert [fault["pointer"] for fault in problem["errors"]] == ["/page", "/limit"]


def test_a_forward_knows_its_version_alone(service: Service) -> None:
    http = service.http
    model = http.post("/models", json={"in_features": 4, "out_features": 4}).json()["id"]
    path, body = f"/models/{model}/forward", {"inputs": [1, 2, 3, 4]}
    assert http.post(f"{path}?version=0", json=body).status_code == 200
    assert "did you mean version?" in detail(http.post(f"{path}?versions=0", json=body))
    assert "version is given 2 times" in detail(http.post(f"{path}?version=0&version=0", json=body))


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/static/js/main.js"])
def test_what_browsers_open_may_be_asked_for_with_anything(http: httpx.Client, path: str) -> None:
    assert http.get(f"{path}?utm_source=letter").status_code == 200
