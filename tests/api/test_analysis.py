"""What is said of a model's change is what its own weights say, and what cannot be said is refused or null."""

from typing import Any

import httpx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from safetensors.numpy import load

from service.engine import decomposing
from tests.api.test_adapters import created, trained
from tests.api.test_combine import NOBODY, WITH_DORA, change, members  # noqa: F401  # a fixture
from tests.running import in_thread


def analysis(http: httpx.Client, model_id: str, **query: str) -> dict[str, Any]:
    answer = http.get(f"/models/{model_id}/analysis", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("place", range(len(WITH_DORA)))
def test_all_that_is_said_is_what_the_weights_say(http: httpx.Client, members: list[str], place: int) -> None:  # noqa: F811
    answer = http.get(f"/models/{members[place]}/analysis")
    seen, D = answer.json(), change(http, members[place])
    assert (answer.headers["x-model-version"], seen["model_id"], seen["version"]) == ("1", members[place], 1)
    values = np.linalg.svd(D, compute_uv=False)
    ranks = [2, 4, 2, 4, 10][place]
    assert np.allclose(seen["singular_values"], values[:ranks], rtol=1e-4, atol=1e-5)
    assert seen["norm"] == pytest.approx(np.linalg.norm(D), rel=1e-5)
    W = load(http.get(f"/models/{members[place]}/weights").content)["base.weight"]
    assert seen["base_norm"] == pytest.approx(np.linalg.norm(W), rel=1e-6)
    assert seen["relative_norm"] == pytest.approx(seen["norm"] / seen["base_norm"])
    assert seen["stable_rank"] == pytest.approx(np.sum(values**2) / values[0] ** 2, rel=1e-4)
    shares = values[:ranks] / values[:ranks].sum()
    assert seen["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares + 1e-30)).sum()), rel=1e-3)
    assert np.allclose(seen["energy"], np.cumsum(values[:ranks] ** 2) / np.sum(values**2), rtol=1e-4)
    assert seen["heatmaps"]["delta"]["shape"] == [10, 24]
    assert np.allclose(seen["heatmaps"]["delta"]["values"], D, atol=1e-5)
    assert seen["overlap"] is None


def test_pictures_of_a_large_layer_are_small_and_are_its_means(http: httpx.Client) -> None:
    model = created(http, in_features=200, out_features=130, rank=3, init="normal")
    maps = analysis(http, model["id"])["heatmaps"]
    tensors = load(http.get(f"/models/{model['id']}/weights").content)
    of = {"A": tensors["lora_A.weight"], "B": tensors["lora_B.weight"], "delta": change(http, model["id"])}
    for name, matrix in of.items():
        assert maps[name]["shape"] == list(matrix.shape)
        values = np.array(maps[name]["values"])
        assert values.shape == tuple(min(64, side) for side in matrix.shape)
        assert values[0, 0] == pytest.approx(
            matrix[: -(-len(matrix) // len(values)), : -(-matrix.shape[1] // values.shape[1])].mean(), abs=1e-5
        )


def test_beside_another_model_it_says_how_near_they_are(http: httpx.Client, members: list[str]) -> None:  # noqa: F811
    for one in members:
        itself = analysis(http, one, **{"with": one})["overlap"]
        assert (itself["model_id"], itself["version"]) == (one, 1)
        assert [itself[name] for name in ("cosine", "input", "output")] == pytest.approx([1, 1, 1])
        for other in members:
            there = analysis(http, one, **{"with": other})["overlap"]
            D1, D2 = change(http, one), change(http, other)
            cosine = (D1 * D2).sum() / np.linalg.norm(D1) / np.linalg.norm(D2)
            assert there["cosine"] == pytest.approx(cosine, abs=1e-4)
            assert all(0 <= there[name] <= 1 for name in ("input", "output"))
            back = analysis(http, other, **{"with": one})["overlap"]
            assert [back[name] for name in ("cosine", "input", "output")] == pytest.approx(
                [there[name] for name in ("cosine", "input", "output")]
            )


@pytest.mark.parametrize("fields", [{}, {"init": "orthogonal"}, {"init": "pissa"}, {"use_dora": True}], ids=str)
def test_a_model_that_changes_nothing_yet_has_zeros_and_nulls(http: httpx.Client, fields: dict[str, Any]) -> None:
    model = created(http, **fields)
    seen = analysis(http, model["id"], **{"with": model["id"]})
    assert not any(seen["singular_values"])
    assert (seen["norm"], seen["relative_norm"], seen["effective_rank"], seen["stable_rank"]) == (0, 0, 0, 0)
    assert seen["energy"] is None
    assert [seen["overlap"][name] for name in ("cosine", "input", "output")] == [None, None, None]
    assert np.abs(seen["heatmaps"]["delta"]["values"]).max() < 1e-6


def test_the_answer_and_its_example_fit_the_schema(http: httpx.Client) -> None:
    page = http.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/Analysis", "components": page["components"]}
    model = created(http)["id"]
    examples = page["components"]["schemas"]["Analysis"]["examples"]
    for body in (analysis(http, model), analysis(http, model, **{"with": model}), *examples):
        Draft202012Validator(schema).validate(body)


def test_what_cannot_be_compared_is_refused_by_name(http: httpx.Client, members: list[str]) -> None:  # noqa: F811
    stranger, path = created(http, seed=98), f"/models/{members[0]}/analysis"
    refused = http.get(path, params={"with": stranger["id"]}).json()
    assert (refused["status"], refused["errors"][0]["pointer"]) == (422, "/with")
    assert all(each in refused["detail"] for each in (members[0], stranger["id"], stranger["base_id"]))
    refused = http.get(path, params={"with": NOBODY}).json()
    assert (refused["status"], refused["type"]) == (404, "/problems/model-not-found")
    assert refused["errors"] == [{"pointer": "/with", "detail": refused["detail"]}]
    refused = http.get(path, params={"with": "mine"}).json()
    assert (refused["status"], refused["errors"][0]["pointer"]) == (422, "/with")
    assert "the id of a model" in refused["detail"]
    assert http.get(f"/models/{NOBODY}/analysis").status_code == 404
    assert http.get("/models/mine/analysis").status_code == 404


def test_a_change_that_would_take_too_long_is_refused_before_memory_is_taken(monkeypatch) -> None:
    monkeypatch.setattr(decomposing, "MAX_WORK", 32**2 * 64)
    with in_thread() as service:
        sizes = {"in_features": 40, "out_features": 33}
        low, dora = (created(service.http, **sizes, use_dora=use_dora)["id"] for use_dora in (False, True))
        assert analysis(service.http, low)["norm"] == 0
        used = service.engine.budget.used
        refused = service.http.get(f"/models/{dora}/analysis")
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/limit-exceeded")
        assert "33 ranks of a change of 33 by 40 take 33² · 73 = 79497 multiplications" in refused.json()["detail"]
        refused = service.http.post("/models", json={"combine": [{"model_id": dora}], "rank": 2})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/combine")
        assert service.engine.budget.used == used


def test_long_ones_go_one_at_a_time_and_short_ones_wait_for_nobody(monkeypatch) -> None:
    monkeypatch.setattr(decomposing, "SHORT_WORK", 4 * 34)
    with in_thread() as service:
        short, long = (created(service.http, rank=rank)["id"] for rank in (2, 3))
        with service.engine.analyst.decomposing.allowed(3, 24, 10, ""):
            refused = service.http.get(f"/models/{long}/analysis")
            assert (refused.status_code, refused.json()["reason"]) == (503, "decomposition-busy")
            assert "retry-after" in refused.headers
            assert analysis(service.http, short)["norm"] == 0
        assert analysis(service.http, long)["norm"] == 0


def test_the_newest_version_is_the_one_that_is_seen(http: httpx.Client) -> None:
    model = trained(http)
    assert analysis(http, model["id"])["version"] == 1
    assert analysis(http, model["id"])["norm"] > 0
