"""One request for many models: each item is answered as if it had come alone, and a wrong one answers for none."""

import json

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from tests.running import Service

SAFETENSORS = {"Content-Type": "application/x-safetensors"}
TERMS = 4.0  # of about this size are the terms that an output is the sum of, and may cancel to
NOBODY = "mdl_00000000000000000000000000"


@pytest.fixture(scope="module")
def models(service: Service) -> list[dict]:
    """Four adapters of unlike ranks: three on one base, one on another of another shape."""
    first = service.http.post("/models", json={"in_features": 6, "out_features": 5, "init": "normal", "seed": 1}).json()
    others = [
        service.http.post("/models", json={"base_id": first["base_id"], "init": "normal", **more}).json()
        for more in ({"rank": 1, "alpha": 3.0, "seed": 2}, {"rank": 5, "train_bias": True, "seed": 3})
    ]
    sizes = {"in_features": 7, "out_features": 9}
    wide = service.http.post("/models", json={**sizes, "init": "normal", "bias": False, "seed": 4})
    return [first, *others, wide.json()]


def alone(http: httpx.Client, model: dict, x: np.ndarray) -> np.ndarray:
    answer = http.post(f"/models/{model['id']}/forward", json={"inputs": x.tolist()}).json()
    return np.array(answer["outputs"], np.float32).reshape(answer["shape"])


@settings(max_examples=20, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some=st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(1, 3), max_size=2)), min_size=1, max_size=9),
    seed=st.integers(0, 1_000),
)
def test_each_item_is_answered_as_it_is_alone(service: Service, models: list[dict], some: list, seed: int) -> None:
    draw = np.random.default_rng(seed)
    asked = [
        (models[which], draw.standard_normal((*shape, models[which]["in_features"])).astype(np.float32))
        for which, shape in some
    ]
    expected = [alone(service.http, model, x) for model, x in asked]
    items = [{"model_id": model["id"], "inputs": x.tolist()} for model, x in asked]
    answers = service.http.post("/forward", json={"items": items}).json()["items"]
    for (model, x), answer, y in zip(asked, answers, expected, strict=True):
        assert (answer["model_id"], answer["model_version"]) == (model["id"], 0)
        assert answer["shape"] == [*x.shape[:-1], model["out_features"]]
        outputs = np.array(answer["outputs"], np.float32).reshape(answer["shape"])
        np.testing.assert_allclose(outputs, y, rtol=0, atol=1e-6 * np.abs(y).max(initial=TERMS))
    tensors = {f"{model['id']}/{at}": x for at, (model, x) in enumerate(asked)}
    answer = service.http.post("/forward", content=save(tensors), headers=SAFETENSORS)
    assert answer.headers["content-type"] == "application/x-safetensors"
    named = load(answer.content)
    assert named.keys() == tensors.keys()
    for name, y in zip(tensors, expected, strict=True):
        np.testing.assert_allclose(named[name], y, rtol=0, atol=1e-6 * np.abs(y).max(initial=TERMS))


def test_safetensors_say_which_version_answered(http: httpx.Client, models: list[dict]) -> None:
    model = http.post("/models", json={"in_features": 6, "out_features": 5}).json()
    http.post(f"/models/{model['id']}/train", headers={"Prefer": "wait=60"})
    x = np.ones((2, 6), np.float32)
    content = save({model["id"]: x, models[0]["id"]: x})
    body = http.post("/forward", content=content, headers=SAFETENSORS).content
    header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    assert json.loads(header["__metadata__"]["model_versions"]) == {model["id"]: 1, models[0]["id"]: 0}
    as_json = http.post("/forward", content=content, headers={**SAFETENSORS, "Accept": "application/json"}).json()
    assert {each["model_id"]: each["model_version"] for each in as_json["items"]} == {
        model["id"]: 1,
        models[0]["id"]: 0,
    }


def test_no_rows_are_a_legal_item_and_what_overflows_is_a_word(http: httpx.Client, models: list[dict]) -> None:
    items = [{"model_id": models[0]["id"], "inputs": inputs} for inputs in ([], [[3e38] * 6])]
    empty, large = http.post("/forward", json={"items": items}).json()["items"]
    assert (empty["outputs"], empty["shape"]) == ([], [0, 5])
    assert {each for each in large["outputs"][0] if isinstance(each, str)} <= {"NaN", "Infinity", "-Infinity"}


GOOD = {"inputs": [0.5] * 6}


@pytest.mark.parametrize(
    ("items", "status", "slug", "at"),
    [
        ([{"model_id": NOBODY, **GOOD}], 404, "model-not-found", "/items/1/model_id"),
        ([{"model_id": "me", **GOOD}], 422, "validation", "/items/1/model_id"),
        ([{"inputs": [0.5] * 6}], 422, "validation", "/items/1/model_id"),
        ([{"model_id": "?", "inputs": [0.5] * 5}], 422, "shape-mismatch", "/items/1/inputs"),
        ([{"model_id": "?", "inputs": [[0.5] * 6, [1]]}], 422, "shape-mismatch", "/items/1/inputs/1"),
        ([{"model_id": "?", "inputs": ["0.5"] * 6}], 422, "validation", "/items/1/inputs/0"),
        ([{"model_id": "?", "inputs": [0.5] * 5 + [1e39]}], 422, "non-finite", "/items/1/inputs/5"),
        ([{"model_id": "?", **GOOD, "more": 1}], 422, "validation", "/items/1/more"),
    ],
)
def test_a_wrong_item_is_named_and_nothing_is_answered(
    http: httpx.Client, models: list[dict], items: list[dict], status: int, slug: str, at: str
) -> None:
    mine = {"model_id": models[0]["id"]}
    items = [{**GOOD, **mine}, *({**item, **(mine if item.get("model_id") == "?" else {})} for item in items)]
    answer = http.post("/forward", json={"items": items})
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert answer.json()["errors"][0]["pointer"] == at
    if status == 404:
        assert "items[1]" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("tensors", "status", "slug"),
    [
        ({NOBODY: np.ones(6, np.float32)}, 404, "model-not-found"),
        ({"?": np.ones(5, np.float32)}, 422, "shape-mismatch"),
        ({"?": np.ones(6, np.int64)}, 422, "bad-safetensors"),
        ({"?": np.full(6, np.nan, np.float32)}, 422, "non-finite"),
        ({}, 422, "limit-exceeded"),
        ({f"?/{at}": np.ones(6, np.float32) for at in range(1_025)}, 422, "limit-exceeded"),
    ],
    ids=["nobody", "shape", "integers", "nan", "none", "many"],
)
def test_a_wrong_tensor_is_refused(
    http: httpx.Client, models: list[dict], tensors: dict, status: int, slug: str
) -> None:
    body = save({name.replace("?", models[0]["id"]): tensor for name, tensor in tensors.items()})
    answer = http.post("/forward", content=body, headers=SAFETENSORS)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1_024, 200), (1_025, 422)])
def test_items_are_one_to_a_thousand(http: httpx.Client, models: list[dict], count: int, status: int) -> None:
    items = [{"model_id": models[0]["id"], **GOOD}] * count
    assert http.post("/forward", json={"items": items}).status_code == status


def test_outputs_beyond_the_limit_are_refused_before_they_are_made(http: httpx.Client) -> None:
    wide = http.post("/models", json={"in_features": 1, "out_features": 65_536, "rank": 1}).json()
    tensors = {f"{wide['id']}/{at}": np.zeros((256, 1), np.float32) for at in range(2)}
    answer = http.post("/forward", content=save(tensors), headers=SAFETENSORS)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/limit-exceeded")
    assert answer.json()["bytes_needed"] == 4 * 2 * 256 * 65_536
    few = save({wide["id"]: np.zeros((17, 1), np.float32)})
    as_json = http.post("/forward", content=few, headers={**SAFETENSORS, "Accept": "application/json"})
    assert as_json.status_code == 422
    assert "ask for a binary type in Accept" in as_json.json()["detail"]
    assert http.post("/forward", content=few, headers=SAFETENSORS).status_code == 200
    http.delete(f"/models/{wide['id']}")


def test_other_types_are_refused(http: httpx.Client) -> None:
    answer = http.post("/forward", content=bytes(24), headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == 415
    items = {"items": [{"model_id": NOBODY, **GOOD}]}
    assert http.post("/forward", json=items, headers={"Accept": "image/png"}).status_code == 406
