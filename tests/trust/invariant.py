"""What holds for every request there is, good or bad: one answer of the right kind, and nothing else has happened."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import service
from tests.running import Service
from tests.trust.asking import Answer

MEMBERS = {"type", "title", "status", "detail", "instance", "request_id", "retryable", "errors", "error"}
MAX_BYTES, MAX_ECHO, MAX_FAULTS = 8 * 1024, 200, 20
INSIDE = re.compile(rf"Traceback|\.py\b|site-packages|{re.escape(str(Path(service.__file__).parent.parent))}")
ANSWERED = re.compile(
    r'^lora_http_request_duration_seconds_count{method="[^"]*",route="([^"]*)",status="(\d+)"} (\S+)$', re.M
)
HELD_BYTES = re.compile(r"^lora_memory_bytes (\S+)$", re.M)
LISTS = ("models", "jobs", "bases", "datasets", "sweeps")
# Headers without which an answer of a kind teaches little.
HEADERS = {
    "method-not-allowed": "allow",
    "unsupported-media-type": "accept",
    "unauthorized": "www-authenticate",
    "idempotency-in-flight": "retry-after",
}


@contextmanager
def nothing_else_happens(service: Service, status: int, counted: int, changes: Mapping[str, int]) -> Iterator[None]:
    """Around one request: the service lives, counts it once, and holds what it held, but for the `changes` told."""
    before, (answered, held_bytes) = holdings(service.http), counts(service.http)
    yield
    now_answered, now_held_bytes = counts(service.http)
    assert service.http.get("/livez").status_code == 200
    after = holdings(service.http)
    assert now_answered - answered == Counter({status: counted} if counted else {})
    assert {name: len(after[name]) - len(before[name]) for name in LISTS} == {**dict.fromkeys(LISTS, 0), **changes}
    assert before["weights"].items() <= after["weights"].items()
    assert changes or (after, now_held_bytes) == (before, held_bytes)


def holdings(http: httpx.Client) -> dict[str, Any]:
    """What a service holds: each list, and the checksums of all models' weights, those of their bases included."""
    lists = {name: http.get(f"/{name}?limit=200").json()["items"] for name in LISTS}
    weights = {model["id"]: http.get(f"/models/{model['id']}/weights") for model in lists["models"]}
    return {**lists, "weights": {id: hashlib.sha256(file.content).hexdigest() for id, file in weights.items()}}


def counts(http: httpx.Client) -> tuple[Counter[int], str]:
    """How many requests have been answered with which status, but for those that ask; and how many bytes are held."""
    text, answered = http.get("/metrics").text, Counter[int]()
    for route, status, number in ANSWERED.findall(text):
        if route != "/metrics":
            answered[int(status)] += int(float(number))
    (held_bytes,) = HELD_BYTES.findall(text)
    return answered, held_bytes


def problem_in(answer: Answer, given: bytes, status: int, slug: str) -> dict[str, Any]:
    """The problem that an answer is; fails where it is none, or tells more than it should."""
    problem = answer.json()
    assert (answer.status, problem["type"]) == (status, f"/problems/{slug}"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.body) <= MAX_BYTES
    assert set(problem) >= MEMBERS
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["error"] == problem["detail"]
    assert len(problem["errors"]) <= MAX_FAULTS
    assert HEADERS.get(slug, "x-request-id") in answer.headers
    assert not INSIDE.search(answer.text)
    for said in [answer.text, *_strings(problem)]:
        assert not echoes(said, given.decode("utf-8", "replace")), said
    return problem


def echoes(said: str, given: str, most: int = MAX_ECHO) -> bool:
    """Whether more than so many characters in a row are the same in both."""
    half = most // 2
    # Wherever that is so, one of these halves is wholly in it, and looking for them is quick.
    places = [at for at in range(0, len(said), half) if said[at : at + half] in given]
    windows = {start for at in places for start in range(max(0, at - most), at + 1) if start + most < len(said)}
    return any(said[start : start + most + 1] in given for start in windows)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
