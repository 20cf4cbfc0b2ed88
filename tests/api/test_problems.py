"""Bad input: each gets a clear problem, and leaves everything as it was."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from service import errors
from service.api.problems import STATUS, status_of
from tests.running import Service, in_thread

JSON = {"Content-Type": "application/json"}
PICTURE = {**JSON, "Accept": "image/png"}
MODEL = {"in_features": 64, "out_features": 10}


@dataclass(frozen=True)
class Bad:
    """A request that must be refused, and how."""

    name: str
    method: str
    path: str
    status: int
    slug: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    says: str = ""
    pointer: str | None = None


def create(name: str, body: Any, status: int, slug: str, says: str = "", pointer: str | None = None) -> Bad:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Bad(f"create: {name}", "POST", "/models", status, slug, raw, JSON, says, pointer)


def train(name: str, body: Any, slug: str, says: str = "", pointer: str | None = None) -> Bad:
    return Bad(
        f"train: {name}", "POST", "/models/{id}/train", 422, slug, json.dumps(body).encode(), JSON, says, pointer
    )


def forward(name: str, body: bytes, slug: str, says: str = "", media: str = "json", status: int = 422) -> Bad:
    types = {"json": "application/json", "npy": "application/x-npy", "raw": "application/octet-stream"}
    headers = {"Content-Type": types.get(media, media)}
    return Bad(f"forward: {name}", "POST", "/models/{id}/forward", status, slug, body, headers, says)


FORGED = base64.urlsafe_b64encode(b'["zzz","models",null]').decode()
INLINE = {"kind": "inline", "x": [[0.0] * 64] * 2, "y": [[0.0] * 10] * 2}

BAD = [
    create("no body", b"", 422, "validation", "empty"),
    create("empty object", {}, 422, "validation", "in_features and out_features", "/in_features"),
    create("null", None, 422, "validation", "must be an object", ""),
    create("a list", [], 422, "validation", "must be an object", ""),
    create("a string", "x", 422, "validation", "must be an object", ""),
    create("trailing comma", b'{"in_features": 64,}', 400, "malformed-json", "byte 19"),
    create("second line", b'{\n"in_features": x}', 400, "malformed-json", "line 2"),
    create("trailing text", b"{} x", 400, "malformed-json"),
    create("byte order mark", b"\xef\xbb\xbf{}", 400, "malformed-json"),
    create("invalid UTF-8", b'{"name": "\xff"}', 400, "malformed-json"),
    create("lone surrogate", b'{"name": "\\ud800"}', 400, "malformed-json"),
    create("cut short", b'{"in_features": 6', 400, "malformed-json"),
    create("101 arrays", b"[" * 101 + b"]" * 101, 400, "too-deep", "nested 101 deep"),
    create("1,000 objects", b'{"a":' * 1_000 + b"1" + b"}" * 1_000, 400, "too-deep"),
    create("250,000 arrays", b"[" * 250_000 + b"]" * 250_000, 400, "too-deep"),
    create("a misspelt field", {"in_feature": 64}, 422, "validation", "did you mean in_features?", "/in_feature"),
    create(
        "the name of PEFT", {**MODEL, "r": 4}, 422, "validation", "r is not a field of this request; did you mean rank?"
    ),
    create("keys of 10 kB", {f"{i}" + "\x01" * 10_000: 1 for i in range(20)}, 422, "validation", "the fields are", ""),
    create("20 keys of emoji", {"\U0001f600" * 60 + str(i): 1 for i in range(20)}, 422, "validation", "the fields are"),
    create("an unknown field", {**MODEL, "zzz": 1}, 422, "validation", "the fields are in_features", "/zzz"),
    create("100,000 unknown fields", {f"k{i}": 1 for i in range(100_000)}, 422, "limit-exceeded", "at most 4096"),
    create(
        "100,000 notes",
        {**MODEL, "metadata": {f"k{i}": 1 for i in range(100_000)}},
        422,
        "limit-exceeded",
        "at most 4096",
    ),
    create(
        "17 notes",
        {**MODEL, "metadata": {f"k{i}": "v" for i in range(17)}},
        422,
        "validation",
        "metadata has 17 items; it must have at most 16",
    ),
    create(
        "a long name", {**MODEL, "name": "n" * 257}, 422, "validation", "name has 257 characters; it may have at most"
    ),
    create(
        "a note that is a number", {**MODEL, "metadata": {"a": 1}}, 422, "validation", "metadata.a is 1; it must be a"
    ),
    create("a note under a long key", {**MODEL, "metadata": {"k" * 99: 1}}, 422, "validation", "k… is 1; it must be a"),
    create("twice the same key", b'{"rank": 1, "rank": 64}', 422, "duplicate-key", 'duplicate key "rank"'),
    create("a string for a number", {**MODEL, "rank": "7"}, 422, "validation", 'rank is "7"; it must be an integer'),
    create("true for a number", {**MODEL, "rank": True}, 422, "validation", "rank is true"),
    create("7.0 for an integer", {**MODEL, "rank": 7.0}, 422, "validation", "rank is 7.0; it must be an integer"),
    create("1 for a boolean", {**MODEL, "bias": 1}, 422, "validation", "bias is 1; it must be true or false"),
    create("size 0", {**MODEL, "in_features": 0}, 422, "limit-exceeded", "in_features is 0; it must be at least 1"),
    create("size -1", {**MODEL, "out_features": -1}, 422, "limit-exceeded", pointer="/out_features"),
    create("size 2^31", {**MODEL, "in_features": 2**31}, 422, "limit-exceeded", "at most 65536"),
    create("size 2^63", {**MODEL, "in_features": 2**63}, 422, "limit-exceeded", "at most 65536"),
    create("size 2^64+1", {**MODEL, "in_features": 2**64 + 1}, 422, "limit-exceeded", "at most 65536"),
    create("5,000 digits", b'{"in_features": ' + b"9" * 5_000 + b"}", 400, "malformed-json", "out of range"),
    create("16 GiB", {"in_features": 65_536, "out_features": 65_536}, 422, "limit-exceeded", "needs 17182228480 bytes"),
    create(
        "rank above both sizes",
        {**MODEL, "rank": 12},
        422,
        "validation",
        "rank is 12; it is at most min(in_features, out_features) = 10",
        "/rank",
    ),
    create("rank 0", {**MODEL, "rank": 0}, 422, "validation", "at least 1", "/rank"),
    create("rank 1,025", {**MODEL, "rank": 1_025}, 422, "limit-exceeded", "at most 1024", "/rank"),
    create("alpha 0", {**MODEL, "alpha": 0}, 422, "validation", "alpha is 0; it must be above 0", "/alpha"),
    create("alpha NaN", b'{"in_features":64,"out_features":10,"alpha":NaN}', 422, "non-finite", "alpha", "/alpha"),
    create("alpha 1e400", b'{"in_features":64,"out_features":10,"alpha":1e400}', 422, "non-finite", "alpha", "/alpha"),
    create("alpha in words", {**MODEL, "alpha": "NaN"}, 422, "non-finite", 'alpha is "NaN"; it must be a finite'),
    create("dropout 1", {**MODEL, "dropout": 1.0}, 422, "validation", "below 1", "/dropout"),
    create("dropout below 0", {**MODEL, "dropout": -0.1}, 422, "validation", "at least 0", "/dropout"),
    create(
        "an init of nobody",
        {**MODEL, "init": "zeros"},
        422,
        "validation",
        "'orthogonal', 'pissa' or 'olora'",
        "/init",
    ),
    create("no bias to train", {**MODEL, "bias": False, "train_bias": True}, 422, "validation", pointer="/train_bias"),
    create("a name of 10 kB", {**MODEL, "name": "x" * 10_000}, 422, "validation", "256", "/name"),
    create("a name with a bell", {**MODEL, "name": "\a"}, 422, "validation", "without control characters", "/name"),
    create("17 notes", {**MODEL, "metadata": {str(i): "" for i in range(17)}}, 422, "validation", "at most 16"),
    create("a number as a note", {**MODEL, "metadata": {"a": 1}}, 422, "validation", pointer="/metadata/a"),
    create("an unknown base", {"base_id": "base_" + "0" * 64}, 404, "base-not-found"),
    create("no base's id", {"base_id": "../etc"}, 422, "validation", "64 hexadecimal digits", "/base_id"),
    train("epochs 0", {"epochs": 0}, "validation", "at least 1", "/epochs"),
    train("epochs 10^9", {"epochs": 10**9}, "limit-exceeded", "at most 10000", "/epochs"),
    train("lr 0", {"lr": 0}, "validation", "above 0", "/lr"),
    train("lr -1", {"lr": -1}, "validation", "above 0", "/lr"),
    train("lr 1e30", {"lr": 1e30}, "limit-exceeded", "at most 1000000", "/lr"),
    train("a batch above the rows", {"batch_size": 1_001}, "validation", "the data has 1000 rows", "/batch_size"),
    train("a setting of another optimizer", {"optimizer": "sgd", "eps": 1}, "validation", "sgd has no eps", "/eps"),
    train("momentum for adam", {"momentum": 0.9}, "validation", "adam has no momentum", "/momentum"),
    train("one beta", {"betas": [0.9]}, "validation", "at least 2", "/betas"),
    train("beta 1", {"betas": [0.9, 1]}, "validation", "betas[1] is 1", "/betas/1"),
    train("an unknown loss", {"loss": "hinge"}, "validation", "'mse'", "/loss"),
    train("an unknown optimizer", {"optimizer": "lion"}, "validation", "'adamw'", "/optimizer"),
    train("classes wanted", {"loss": "cross_entropy"}, "validation", "integer classes", "/loss"),
    train("probabilities wanted", {"loss": "bce_with_logits"}, "validation", "from 0 to 1", "/loss"),
    train("numbers wanted", {"data": {"kind": "digits"}}, "validation", "losses that fit this data", "/loss"),
    train("no kind", {"data": {}}, "validation", "data.kind is required", "/data"),
    train("no id", {"data": {"kind": "dataset"}}, "validation", "data.id is required", "/data/id"),
    train(
        "130,002 lists",
        {"data": {"kind": "inline", "x": [[0]] * 65_000, "y": [[0]] * 65_000}},
        "limit-exceeded",
        "rows to train on by POST /datasets",
    ),
    train("a fraction by name", {"validation": {"fraction": 0.2}}, "validation", "such as 0.2", "/validation"),
    train("an unknown kind", {"data": {"kind": "cifar"}}, "validation", "digits", "/data"),
    train("the name of others", {"learning_rate": 3}, "validation", "did you mean lr?", "/learning_rate"),
    train("data's field", {"n_samples": 3}, "validation", "loss, batch_size, seed, data", "/n_samples"),
    train("x of random data", {"data": {"kind": "random", "x": 1}}, "validation", "kind, n_samples, seed", "/data/x"),
    train("a misspelt field", {"epoch": 3}, "validation", "did you mean epochs?", "/epoch"),
    train("one in data", {"data": {"kind": "random", "samples": 3}}, "validation", "n_samples?", "/data/samples"),
    train("0 rows", {"data": {"kind": "random", "n_samples": 0}}, "validation", "at least 1", "/data/n_samples"),
    train("10^8 rows", {"data": {"kind": "random", "n_samples": 10**8}}, "limit-exceeded", "bytes", "/data"),
    train(
        "teacher's rank",
        {"data": {"kind": "teacher", "teacher_rank": 11}},
        "validation",
        "at most",
        "/data/teacher_rank",
    ),
    train("no inline rows", {"data": {**INLINE, "x": [], "y": []}}, "validation", "no rows", "/data/x"),
    train("ragged x", {"data": {**INLINE, "x": [[1] * 64, [1]]}}, "shape-mismatch", "data.x[1] is 1 long", "/data/x/1"),
    train("narrow x", {"data": {**INLINE, "x": [[1], [1]]}}, "shape-mismatch", "must be [2, 64]", "/data/x"),
    train("short y", {"data": {**INLINE, "y": [[0] * 10]}}, "shape-mismatch", "must be [2, 10]", "/data/y"),
    train(
        "null in x", {"data": {**INLINE, "x": [[None] * 64] * 2}}, "validation", "data.x[0][0] is null", "/data/x/0/0"
    ),
    train(
        "a class too high",
        {"loss": "cross_entropy", "data": {**INLINE, "y": [0, 10]}},
        "validation",
        "0 to 9",
        "/data/y",
    ),
    train("half a class", {"loss": "cross_entropy", "data": {**INLINE, "y": [0, 0.5]}}, "validation", "an integer"),
    Bad(
        "train: text",
        "POST",
        "/models/{id}/train",
        415,
        "unsupported-media-type",
        b"{}",
        {"Content-Type": "text/plain"},
    ),
    forward("no body", b"", "validation", "empty"),
    forward("no inputs", b"{}", "validation", "inputs is missing"),
    forward(
        "a misspelt field", b'{"input": [1]}', "validation", "'input' is not a field of this request; did you mean"
    ),
    forward("the name of others", b'{"instances": [1]}', "validation", "its only field is inputs"),
    forward("another field", b'{"inputs": [], "rows": 1}', "validation", "'rows' is not a field"),
    forward("a number", b'{"inputs": 1}', "validation", "inputs is 1"),
    forward("a wrong width", b'{"inputs": [1, 2]}', "shape-mismatch", "in_features = 64"),
    forward("ragged rows", b'{"inputs": [[1, 2], [3]]}', "shape-mismatch", "inputs[1] is 1 long"),
    forward("a million empty rows", b'{"inputs": [' + b"[]," * 999_999 + b"[]]}", "shape-mismatch"),
    forward("text among numbers", b'{"inputs": [[1, "2"]]}', "validation", 'inputs[0][1] is "2"'),
    forward("true among numbers", b'{"inputs": [true]}', "validation", "inputs[0] is true"),
    forward("NaN", b'{"inputs": [[1, NaN]]}', "non-finite", "inputs[0][1] is nan"),
    forward("1e400", b'{"inputs": [1e400]}', "non-finite", "inputs[0] is inf"),
    forward("beyond float32", b'{"inputs": [1e39]}', "non-finite", "finite as float32"),
    forward("9 dimensions", b'{"inputs": ' + b"[" * 9 + b"]" * 9 + b"}", "limit-exceeded", "8 dimensions"),
    forward("a million and one", b'{"inputs": [' + b"1," * 2**20 + b"1]}", "limit-exceeded", "1048576"),
    forward("two keys", b'{"inputs": [1], "inputs": [2]}', "duplicate-key"),
    forward("300,000 wrong elements", b'{"inputs": [' + b'"x",' * 299_999 + b'"x"]}', "validation", "inputs[0]"),
    forward("no Content-Type", b"{}", "unsupported-media-type", "there is no Content-Type", media="", status=415),
    forward("a pickle", b"\x80\x04.", "unsupported-media-type", media="application/vnd.python.pickle", status=415),
    forward("a form", b"a=1", "unsupported-media-type", media="application/x-www-form-urlencoded", status=415),
    forward("broken npy", b"\x93NUMPY\x01\x00", "bad-npy", media="npy"),
    forward("half a row", np.zeros(63, dtype="<f4").tobytes(), "shape-mismatch", "has 252 bytes", media="raw"),
    forward("NaN in bytes", np.full(64, np.nan, dtype="<f4").tobytes(), "non-finite", "inputs[0][0]", media="raw"),
    Bad(
        "forward: an Accept nobody can meet",
        "POST",
        "/models/{id}/forward",
        406,
        "not-acceptable",
        b'{"inputs": []}',
        PICTURE,
    ),
    Bad("gzip", "POST", "/models", 415, "unsupported-encoding", b"\x1f\x8b", {**JSON, "Content-Encoding": "gzip"}),
    *(
        Bad(f"an Accept nobody can meet, {method} {path}", method, path, 406, "not-acceptable", b"{}", PICTURE)
        for method, path in [
            ("POST", "/models"),
            ("GET", "/models"),
            ("GET", "/models/{id}"),
            ("PATCH", "/models/{id}"),
            ("GET", "/models/{id}/weights"),
            ("POST", "/models/{id}/train"),
            ("GET", "/jobs"),
            ("GET", "/events"),
            ("GET", "/limits"),
        ]
    ),
    Bad("an unknown route", "GET", "/nothing", 404, "not-found"),
    Bad("an unknown route of 7 kB", "GET", "/" + "a" * 7_000, 404, "not-found"),
    Bad("an unknown model", "GET", f"/models/mdl_{'0' * 26}", 404, "model-not-found"),
    Bad("an unknown job", "GET", f"/jobs/job_{'0' * 26}", 404, "job-not-found"),
    Bad("an unknown problem", "GET", "/problems/nothing", 404, "not-found"),
    *(
        Bad(f"id {name}", "GET", f"/models/{bad}", 404, "not-found")
        for name, bad in {
            "traversal": "..%2f..%2fetc%2fpasswd",
            "double-encoded": "%252e%252e",
            "backslash": "..%5c",
            "NUL": "mdl_%00",
            "4 kB": "m" * 4_096,
            "emoji": "%F0%9F%8E%88",
            "lower case": f"mdl_{'a' * 26}",
            "a newline after it": f"mdl_{'0' * 26}%0A",
            "a job's": f"job_{'0' * 26}",
        }.items()
    ),
    *(
        Bad(f"no id: {path}", "GET", f"/{path}/abc", 404, "not-found", says=f"an id looks like {begins}")
        for path, begins in (
            ("models", "mdl_01"),
            ("bases", "base_2d"),
            ("jobs", "job_01"),
            ("datasets", "dat_01"),
            ("sweeps", "swp_01"),
            ("v2/models", "mdl_01"),
        )
    ),
    Bad("limit 0", "GET", "/models?limit=0", 422, "validation", says="at least 1", pointer="/limit"),
    Bad("limit 10^9", "GET", "/jobs?limit=1000000000", 422, "limit-exceeded", says="at most 200", pointer="/limit"),
    *(
        Bad(f"limit {n}", "GET", f"/models?limit={n}", 422, "validation", says="an integer")
        for n in ("7.0", "1_0", "a")
    ),
    Bad("a cursor that is none", "GET", "/models?cursor=abc", 400, "bad-cursor"),
    Bad("a forged cursor", "GET", f"/models?cursor={FORGED}", 400, "bad-cursor"),
    Bad("a wrong method", "PUT", "/models", 405, "method-not-allowed", says="it knows GET, HEAD, POST"),
    Bad("TRACE", "TRACE", "/models", 405, "method-not-allowed"),
]


@pytest.fixture(scope="module")
def quiet() -> Iterator[tuple[Service, str]]:
    """A service with one model that nobody else touches."""
    with in_thread() as service:
        yield service, service.http.post("/models", json=MODEL).json()["id"]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_input_gets_a_clear_problem_and_changes_nothing(quiet: tuple[Service, str], bad: Bad) -> None:
    service, model_id = quiet
    http = service.http
    weights = http.get(f"/models/{model_id}/weights").content
    used = service.engine.budget.used
    answer = http.request(
        bad.method, bad.path.replace("{id}", model_id), content=bad.body, headers={"User-Agent": "t", **bad.headers}
    )
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (bad.status, f"/problems/{bad.slug}"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) <= 8_192
    assert {"type", "title", "status", "detail", "instance", "request_id", "retryable", "errors", "error"} <= set(
        problem
    )
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["error"] == problem["detail"]
    assert len(problem["errors"]) <= 20
    assert longest_run(answer.text) < 200
    assert "Traceback" not in answer.text
    assert not re.search(r"\.py\b", answer.text)
    assert bad.says in problem["detail"]
    if bad.pointer is not None:
        assert problem["errors"][0]["pointer"] == bad.pointer
    if bad.status == 422:
        assert problem["errors"]
    assert http.get(problem["type"]).status_code == 200
    assert http.get("/livez").status_code == 200
    assert [model["id"] for model in http.get("/models").json()["items"]] == [model_id]
    assert http.get("/jobs").json()["items"] == []
    assert http.get(f"/models/{model_id}/weights").content == weights
    assert service.engine.budget.used == used


def longest_run(text: str) -> int:
    """How often the same character stands in a row: what the service writes itself has no such runs."""
    return max(len(list(run)) for _, run in groupby(text))


def test_a_body_beyond_the_limit_is_413_however_it_says_its_length(quiet: tuple[Service, str]) -> None:
    service, model_id = quiet
    limit = 16 * 2**20
    for content in (b" " * (limit + 1), (b" " * 2**20 for _ in range(17))):
        answer = service.http.post(f"/models/{model_id}/forward", content=content, headers=JSON)
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
        assert answer.json()["limit"] == limit
        assert answer.headers["connection"] == "close"


def test_a_wrong_type_is_answered_with_the_right_ones(quiet: tuple[Service, str]) -> None:
    service, model_id = quiet
    headers = {"Content-Type": "text/plain"}
    forward = service.http.post(f"/models/{model_id}/forward", content=b"1", headers=headers)
    assert "application/x-npy" in forward.headers["accept"].split(", ")
    assert service.http.post("/models", content=b"1", headers=headers).headers["accept"] == "application/json"


def test_allow_names_every_method_of_the_address(quiet: tuple[Service, str]) -> None:
    service, model_id = quiet
    assert service.http.put("/models").headers["allow"] == "GET, HEAD, POST"
    assert service.http.put(f"/models/{model_id}").headers["allow"] == "DELETE, GET, HEAD, PATCH"
    assert service.http.put("/docs").headers["allow"]


def test_a_clients_own_request_id_comes_back_where_it_is_plain(quiet: tuple[Service, str]) -> None:
    http = quiet[0].http
    assert http.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert http.get("/nothing", headers={"X-Request-Id": "abc-2"}).json()["request_id"] == "abc-2"
    assert re.fullmatch("[0-9a-f]{16}", http.get("/livez", headers={"X-Request-Id": "a b"}).headers["x-request-id"])
    assert len(http.get("/livez", headers={"X-Request-Id": "x" * 200}).headers["x-request-id"]) == 16


def test_every_kind_of_error_has_a_page_with_its_title_and_status(quiet: tuple[Service, str]) -> None:
    http = quiet[0].http
    for kind in errors.kinds():
        page = http.get(f"/problems/{kind.slug()}")
        assert page.status_code == 200
        assert escape(kind.title()) in page.text
        assert f"Status {status_of(kind)}" in page.text


def test_only_a_bug_is_a_500() -> None:
    assert {kind for kind in errors.kinds() if status_of(kind) == 500} == {errors.InternalError}
    assert all(400 <= status < 600 for status in STATUS.values())


def test_a_bug_is_a_problem_without_its_trace_and_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    with in_thread() as service:
        model_id = service.http.post("/models", json=MODEL).json()["id"]
        service.engine.registry.swap(model_id, lambda model: None)  # type: ignore[arg-type, return-value]
        answer = service.http.get(f"/models/{model_id}")
        service.engine.registry._models.clear()
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal-error")
    assert "NoneType" not in answer.text
    assert answer.json()["request_id"] in caplog.text
    assert "Traceback" in caplog.text
