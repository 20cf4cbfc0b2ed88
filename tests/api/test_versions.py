"""Versions over HTTP: each is what it was, and a model goes back to one by going on."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from safetensors.numpy import load, save

from service.api import etags
from service.training.digests import digest_of, digest_of_rows
from service.training.sources import Random
from tests.running import Service, in_thread, until

SIZES = {"in_features": 8, "out_features": 4, "rank": 2, "seed": 1}
FILE = {"Content-Type": "application/x-safetensors"}
X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
LONG = {"epochs": 10_000, "batch_size": 1, "data": {"kind": "random", "n_samples": 500}}


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def keeping(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that keeps two earlier versions."""
    stored = {"database_url": f"sqlite:///{tmp_path_factory.mktemp('versions')}/lora.db"}
    with in_thread(keep_versions=2, **(stored if request.param == "sqlite" else {})) as service:
        service.wait_for_workers()
        yield service


@pytest.fixture
def http(keeping: Service) -> httpx.Client:
    return keeping.http


@pytest.fixture
def model(http: httpx.Client) -> str:
    return http.post("/models", json=SIZES).json()["id"]


def adapter(fill: float) -> bytes:
    return save({"lora_A.weight": np.full((2, 8), fill, np.float32), "lora_B.weight": np.ones((4, 2), np.float32)})


def put(http: httpx.Client, model: str, fill: float, **headers: str) -> dict[str, Any]:
    answer = http.put(f"/models/{model}/adapter", content=adapter(fill), headers={**FILE, **headers})
    assert answer.status_code == 200, answer.text
    return answer.json()


def train(http: httpx.Client, model: str, **plan: Any) -> dict[str, Any]:
    asked = {"epochs": 2, "seed": 5, "data": {"kind": "random", "n_samples": 20}, **plan}
    job = http.post(f"/models/{model}/train", json=asked, headers={"Prefer": "wait=60"}).json()
    assert job["state"] == "succeeded", job
    return job


def versions(http: httpx.Client, model: str) -> list[dict[str, Any]]:
    answer = http.get(f"/models/{model}/versions")
    assert answer.status_code == 200, answer.text
    assert answer.json()["next_cursor"] is None
    return answer.json()["items"]


def outputs(http: httpx.Client, model: str, **query: Any) -> httpx.Response:
    return http.post(f"/models/{model}/forward", params=query, json={"inputs": X.tolist()})


def test_each_version_says_where_it_comes_from(http, model):
    created = http.get(f"/models/{model}").json()
    (first,) = versions(http, model)
    assert first == {
        **dict.fromkeys(["parent", "job_id", "data_digest", "plan", "loss", "validation_loss"]),
        "version": 0,
        "created_at": created["created_at"],
        "origin": "created",
        "current": True,
        "best": False,
        "bytes": created["bytes"],
    }
    job = train(http, model)
    put(http, model, 1)
    back = http.post(f"/models/{model}/rollback", json={"version": 1}).json()
    assert (back["version"], back["last_loss"]) == (3, job["metrics"]["final_loss"])
    told = versions(http, model)
    keys = ("version", "origin", "parent", "job_id", "loss", "current", "best")
    assert [tuple(each[key] for key in keys) for each in told] == [
        (3, "rollback", 1, None, job["metrics"]["final_loss"], True, False),
        (2, "import", 1, None, None, False, False),
        (1, "training", 0, job["id"], job["metrics"]["final_loss"], False, True),
    ]
    assert told[2]["plan"] == job["plan"]
    assert told[2]["created_at"] == job["finished_at"]
    assert told[2]["data_digest"] == digest_of(Random(n_samples=20, seed=5))


def test_rows_that_were_sent_or_uploaded_have_the_same_digest(http, model):
    draw = np.random.default_rng(0)
    rows = {name: draw.standard_normal((6, size)).astype(np.float32) for name, size in (("x", 8), ("y", 4))}
    dataset = http.post("/datasets", content=save(rows), headers=FILE).json()["id"]
    train(http, model, data={"kind": "inline", **{name: of.tolist() for name, of in rows.items()}})
    train(http, model, data={"kind": "dataset", "id": dataset})
    assert {each["data_digest"] for each in versions(http, model)} == {None, digest_of_rows(rows)}


def test_a_forward_by_an_earlier_version_gives_what_that_one_gave(http, model):
    before = [outputs(http, model).json()]
    for fill in (1, 2):
        put(http, model, fill)
        before.append(outputs(http, model).json())
    for _ in range(3):  # by merged weights, where there are some
        outputs(http, model)
    for number, then in enumerate(before):
        now = outputs(http, model, version=number)
        assert now.headers["x-model-version"] == str(number)
        assert now.json()["model_version"] == number
        assert np.allclose(now.json()["outputs"], then["outputs"], rtol=1e-5, atol=1e-6)
    assert outputs(http, model).json()["model_version"] == 2
    assert np.allclose(outputs(http, model).json()["outputs"], before[2]["outputs"], rtol=1e-5, atol=1e-6)


def test_bytes_come_from_an_earlier_version_too_and_from_a_thread_where_there_are_many(http):
    sizes = {"in_features": 128, "out_features": 128, "rank": 2}
    model = http.post("/models", json=sizes).json()["id"]
    x = np.random.default_rng(0).standard_normal((300, 128)).astype(np.float32)
    raw = {"Content-Type": "application/octet-stream"}
    before = http.post(f"/models/{model}/forward", content=x.tobytes(), headers=raw).content
    train(http, model)
    after = http.post(f"/models/{model}/forward", content=x.tobytes(), headers=raw)
    for number, then in ((0, before), (1, after.content)):
        now = http.post(f"/models/{model}/forward?version={number}", content=x.tobytes(), headers=raw)
        assert now.headers["x-model-version"] == str(number)
        then, now = (np.frombuffer(body, np.float32) for body in (then, now.content))
        assert np.allclose(then, now, rtol=1e-5, atol=1e-5)
    assert before != after.content


@pytest.mark.parametrize("path", ["weights", "adapter/adapter_model.safetensors", "merged"])
def test_files_of_an_earlier_version_are_those_it_had_with_their_tag(http, model, path):
    then = http.get(f"/models/{model}/{path}")
    train(http, model)
    assert http.get(f"/models/{model}/{path}").content != then.content
    now = http.get(f"/models/{model}/{path}", params={"version": 0})
    assert now.content == then.content
    assert (now.headers["x-model-version"], now.headers["etag"]) == ("0", etags.of_bytes(then.content))
    known = {"If-None-Match": then.headers["etag"]}
    assert http.get(f"/models/{model}/{path}", params={"version": 0}, headers=known).status_code == 304
    assert http.get(f"/models/{model}/{path}", params={"version": 1}, headers=known).status_code == 200


READS = ["weights", "adapter/adapter_model.safetensors", "merged", "forward"]


def asked(http: httpx.Client, model: str, path: str, version: str) -> httpx.Response:
    if path == "forward":
        return outputs(http, model, version=version)
    return http.get(f"/models/{model}/{path}", params={"version": version})


@pytest.mark.parametrize("path", READS)
def test_a_version_that_is_not_kept_is_a_404_that_lists_those_that_are(http, model, path):
    for fill in range(4):
        put(http, model, fill)
    for version in ("1", "5", "9" * 30):
        refused = asked(http, model, path, version)
        assert (refused.status_code, refused.json()["type"]) == (404, "/problems/version-not-found")
        assert refused.json()["detail"] == f"model {model} keeps no version {version}; it keeps 4, 3, 2"


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize(
    ("version", "detail"),
    [
        ("one", 'version is "one"; it must be an integer'),
        ("", 'version is ""; it must be an integer'),
        ("1.5", 'version is "1.5"; it must be an integer'),
        ("-1", 'version is "-1"; it must be at least 0'),
    ],
)
def test_what_is_no_whole_number_is_a_422(http, model, path, version, detail):
    refused = asked(http, model, path, version)
    assert (refused.status_code, refused.json()["detail"]) == (422, detail)
    assert refused.json()["errors"][0]["pointer"] == "/version"


def test_versions_of_a_model_that_is_not_there_are_a_404(http):
    nobody = "mdl_" + "0" * 26
    for answer in (http.get(f"/models/{nobody}/versions"), http.post(f"/models/{nobody}/rollback")):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/model-not-found")


def test_without_a_body_a_model_goes_back_to_the_version_before(http, model):
    then = load(http.get(f"/models/{model}/weights").content)
    put(http, model, 7)
    back = http.post(f"/models/{model}/rollback")
    assert (back.status_code, back.json()["version"], back.headers["etag"]) == (200, 2, '"2"')
    now = load(http.get(f"/models/{model}/weights").content)
    assert all(np.array_equal(now[name], then[name]) for name in then)
    assert http.post(f"/models/{model}/rollback").json()["version"] == 3
    assert (load(http.get(f"/models/{model}/weights").content)["lora_A.weight"] == 7).all()


def test_a_model_without_an_earlier_version_has_none_to_go_back_to(http, model):
    refused = http.post(f"/models/{model}/rollback")
    assert (refused.status_code, refused.json()["type"]) == (404, "/problems/version-not-found")
    assert "keeps no version before the current one, which is 0" in refused.json()["detail"]
    refused = http.post(f"/models/{model}/rollback", json={"version": 3})
    assert refused.json()["detail"] == f"model {model} keeps no version 3; it keeps 0"
    assert http.get(f"/models/{model}").json()["version"] == 0


@pytest.mark.parametrize("body", [{"version": -1}, {"version": "1"}, {"version": 1.0}, {"versions": 1}, []])
def test_a_rollback_to_what_is_no_version_is_a_422(http, model, body):
    assert http.post(f"/models/{model}/rollback", json=body).status_code == 422


def test_whoever_knows_an_older_state_rolls_nothing_back(http, model):
    put(http, model, 1)
    path = f"/models/{model}/rollback"
    stale = http.post(path, headers={"If-Match": '"0"'})
    assert (stale.status_code, stale.json()["type"]) == (412, "/problems/stale")
    assert http.post(path, headers={"If-Match": '"1"'}).json()["version"] == 2


def test_while_a_job_is_active_nothing_is_rolled_back(http, model):
    put(http, model, 1)
    job = http.post(f"/models/{model}/train", json=LONG).json()["id"]
    refused = http.post(f"/models/{model}/rollback")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/model-busy")
    http.post(f"/jobs/{job}/cancel")
    until(lambda: http.post(f"/models/{model}/rollback").status_code == 200)


def test_a_repeat_of_a_rollback_gets_the_first_answer_and_goes_back_once(http, model):
    put(http, model, 1)
    key = {"Idempotency-Key": "back", "If-Match": '"1"'}
    first, again = (http.post(f"/models/{model}/rollback", headers=key) for _ in range(2))
    assert (first.status_code, first.json()["version"]) == (200, 2)
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    assert again.headers["idempotency-replayed"] == "true"
    assert http.get(f"/models/{model}").json()["version"] == 2
    other = http.post(f"/models/{model}/rollback", headers=key, json={"version": 0})
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-mismatch")


def test_nobody_trains_on_from_before_a_rollback(http, model):
    job = train(http, model)
    http.post(f"/models/{model}/rollback")
    refused = http.post(f"/models/{model}/train", json={"continue_from": job["id"]})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/state-gone")


def test_a_model_that_goes_takes_its_versions_along(http, model):
    put(http, model, 1)
    assert http.delete(f"/models/{model}").status_code == 204
    for path in READS:
        assert asked(http, model, path, "0").json()["type"] == "/problems/model-not-found"


def test_the_list_is_as_the_page_describes_it(http, model):
    train(http, model)
    page = http.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/VersionPage", "components": page["components"]}
    known = http.get(f"/models/{model}/versions").json()
    Draft202012Validator(schema).validate(known)
    for example in page["components"]["schemas"]["VersionPage"]["examples"]:
        Draft202012Validator(schema).validate(example)
        assert {*example["items"][0]} == {*known["items"][0]}
    assert json.dumps(page["paths"]["/models/{model_id}/forward"]["post"]["parameters"]).count('"version"') == 1


def test_a_forward_by_a_version_gives_that_ones_outputs_while_others_are_published(http, model):
    filled = {0: outputs(http, model).json()["outputs"]}
    over, wrong, seen = threading.Event(), [], []

    def publish() -> None:
        for fill in range(1, 60):
            put(http, model, fill)
        over.set()

    def expected(number: int) -> np.ndarray:
        frozen = np.array(filled[0])
        return frozen if not number else frozen + np.outer(X.sum(1) * number * 2, np.ones(4))

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        while not over.is_set():
            current = http.get(f"/models/{model}").json()["version"]
            for number in (current, max(0, current - 1), max(0, current - 2)):
                answer = outputs(http, model, version=number)
                if answer.status_code == 404:  # gone meanwhile
                    continue
                seen.append(number)
                right = np.allclose(answer.json()["outputs"], expected(number), rtol=1e-4, atol=1e-4)
                if not right or answer.headers["x-model-version"] != str(number):
                    wrong.append(number)
    finally:
        publisher.join()
    assert seen
    assert wrong == []


def test_a_version_is_the_best_by_the_rows_that_were_held_out(http, model):
    held_out = {"validation": {"kind": "random", "n_samples": 20, "seed": 6}}
    for epochs in (1, 300):  # the second learns the noise of its rows by heart
        train(http, model, epochs=epochs, lr=0.05, **held_out)
    second, first, _ = versions(http, model)
    assert second["loss"] < first["loss"]
    assert second["validation_loss"] > first["validation_loss"]
    assert (second["best"], first["best"]) == (False, True)
    train(http, model, loss="huber")
    assert versions(http, model)[0]["best"]  # nothing can be compared with it
