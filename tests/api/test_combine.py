"""Models are combined into one whose change is their weighted sum; it is kept, exported and trained like any other."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from peft import PeftModel
from safetensors.numpy import load

from service.schemas.requests import MAX_COMBINED
from tests.api.test_adapters import SIZES, TRAIN, computed, created, network, outputs, taken, trained
from tests.running import in_thread

NOBODY = "mdl_01M85RD3BCCMDPHHSCEG79B55H"
MEMBERS: list[dict[str, Any]] = [
    {"rank": 2, "init": "normal", "alpha": 3},
    {"rank": 4, "use_rslora": True, "alpha": 2.5, "train_bias": True},
    {"rank": 1, "init": "pissa"},
    {"rank": 2, "init": "olora", "train_bias": True},
]
WITH_DORA = [*MEMBERS, {"rank": 2, "use_dora": True, "init": "pissa"}]


@pytest.fixture(scope="module")
def members(service: Any) -> list[str]:
    """Trained models of every kind on one base; the last one has a magnitude."""
    first = trained(service.http, **WITH_DORA[0])
    rest = [trained(service.http, base_id=first["base_id"], **each) for each in WITH_DORA[1:]]
    return [model["id"] for model in (first, *rest)]


def combine(http: httpx.Client, members: list[dict[str, Any]], **fields: Any) -> httpx.Response:
    return http.post("/models", json={"combine": members, **fields})


def combined(http: httpx.Client, weights: dict[str, float], **fields: Any) -> dict[str, Any]:
    answer = combine(http, [{"model_id": each, "weight": weight} for each, weight in weights.items()], **fields)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def base_outputs(http: httpx.Client, model_id: str) -> np.ndarray:
    return computed(network(http, model_id))


def change(http: httpx.Client, model_id: str) -> np.ndarray:
    """The change of the weight that a model makes, from its tensors."""
    merged = load(http.get(f"/models/{model_id}/merged").content)["weight"].astype(np.float64)
    return merged - load(http.get(f"/models/{model_id}/weights").content)["base.weight"]


def assert_adds_up(http: httpx.Client, model_id: str, weights: dict[str, float]) -> None:
    base = base_outputs(http, model_id)
    expected = sum(weight * (outputs(http, each) - base) for each, weight in weights.items())
    assert np.abs(outputs(http, model_id) - base - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_change_of_every_output_is_the_weighted_sum(http: httpx.Client, members: list[str]) -> None:
    weights = dict(zip(members, (0.5, -1.25, 2, 1), strict=False))
    model = combined(http, weights, name="sum", metadata={"k": "v"}, dropout=0.1)
    assert_adds_up(http, model["id"], weights)
    said = ("rank", "alpha", "scaling", "use_rslora", "use_dora", "init", "dropout", "train_bias", "name", "metadata")
    ranks = 2 + 4 + 2 * 1 + 2 * 2  # a start on the base has its frozen half too
    assert [model[name] for name in said] == [
        *(10, 10.0, 1.0, False, False, "kaiming", 0.1, True, "sum"),
        {"k": "v"},
    ]
    assert model["combined"]["rank"] == ranks == 12  # more than 10 outputs can use, so nothing is left out
    assert (model["combined"]["error"], model["combined"]["relative_error"]) == (0, 0)
    assert [each["weight"] for each in model["combined"]["members"]] == [0.5, -1.25, 2, 1]
    assert {each["version"] for each in model["combined"]["members"]} == {1}
    assert http.get(f"/models/{model['id']}").json() == model


def test_where_the_ranks_suffice_the_factors_stand_side_by_side(http: httpx.Client, members: list[str]) -> None:
    weights = {members[0]: 2.0, members[1]: -1.0}
    own = [load(http.get(f"/models/{each}/weights").content) for each in weights]
    sum_of = load(http.get(f"/models/{combined(http, weights)['id']}/weights").content)
    scalings = [1.5, 2.5 / 2]
    expected = [
        weight * scaling * tensors["lora_A.weight"].astype(np.float64)
        for weight, scaling, tensors in zip(weights.values(), scalings, own, strict=True)
    ]
    assert np.array_equal(sum_of["lora_A.weight"], np.concatenate(expected).astype(np.float32))
    assert np.array_equal(sum_of["lora_B.weight"], np.concatenate([each["lora_B.weight"] for each in own], axis=1))
    assert np.allclose(sum_of["bias"], 2 * own[1]["base.bias"] - own[1]["bias"], atol=1e-6)


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_a_compressed_sum_says_how_far_it_is(http: httpx.Client, members: list[str], rank: int, count: int) -> None:
    weights = dict.fromkeys(members[-count:], 0.75)
    model = combined(http, weights, rank=rank)
    total = sum(weight * change(http, each) for each, weight in weights.items())
    size = np.linalg.norm(total)
    assert model["rank"] == rank
    assert model["combined"]["rank"] == 10  # a change with a magnitude has as many as there are outputs
    assert model["combined"]["error"] == pytest.approx(np.linalg.norm(total - change(http, model["id"])), rel=1e-4)
    tail = np.linalg.svd(total, compute_uv=False)[rank:]
    assert model["combined"]["error"] == pytest.approx(np.linalg.norm(tail), rel=1e-4)
    assert model["combined"]["relative_error"] == pytest.approx(model["combined"]["error"] / size, rel=1e-4)


def test_a_sum_with_a_magnitude_in_it_is_exact_at_full_rank(http: httpx.Client, members: list[str]) -> None:
    weights = dict(zip(members, (1, 0.5, -1, 0.25, 2), strict=True))
    model = combined(http, weights, rank=10)
    assert model["combined"]["error"] == 0
    assert_adds_up(http, model["id"], weights)


def test_a_model_may_come_twice_and_counts_one_when_nothing_is_said(http: httpx.Client, members: list[str]) -> None:
    model = combine(http, [{"model_id": members[0]}, {"model_id": members[0], "weight": -1}]).json()
    assert [each["weight"] for each in model["combined"]["members"]] == [1, -1]
    assert model["rank"] == 4
    assert np.allclose(outputs(http, model["id"]), base_outputs(http, model["id"]), atol=1e-5)


def test_what_takes_itself_away_leaves_nothing_out_and_can_learn(http: httpx.Client, members: list[str]) -> None:
    one, compressed = {"model_id": members[0]}, {"rank": 1}
    model = combine(http, [one, {**one, "weight": -1}], **compressed).json()
    assert (model["combined"]["error"], model["combined"]["relative_error"]) == (0, 0)
    tensors = load(http.get(f"/models/{model['id']}/weights").content)
    assert not tensors["lora_B.weight"].any()
    assert np.linalg.norm(tensors["lora_A.weight"]) == pytest.approx(1)
    job = http.post(f"/models/{model['id']}/train", json=TRAIN, headers={"Prefer": "wait=60"}).json()
    assert job["losses"][-1] < job["losses"][0]


def test_real_peft_loads_the_sum_and_gives_the_same_outputs(http: httpx.Client, members: list[str], tmp_path: Path):
    for name, fields in {"exact": {}, "compressed": {"rank": 3}}.items():
        model = combined(http, dict.fromkeys(members[:2], 0.5), **fields)
        theirs = PeftModel.from_pretrained(network(http, model["id"]), taken(http, model["id"], tmp_path / name))
        assert np.abs(computed(theirs) - outputs(http, model["id"])).max() <= 1e-6 * np.abs(computed(theirs)).max()


def test_it_is_the_sum_that_pefts_cat_makes(http: httpx.Client, tmp_path: Path) -> None:
    one = trained(http, init="normal", alpha=3)
    other = trained(http, base_id=one["base_id"], rank=3, init="normal", use_rslora=True)
    theirs = PeftModel.from_pretrained(network(http, one["id"]), taken(http, one["id"], tmp_path / "one"), "one")
    theirs.load_adapter(str(taken(http, other["id"], tmp_path / "other")), "other")
    theirs.add_weighted_adapter(["one", "other"], [0.5, -2.0], "sum", combination_type="cat")
    theirs.set_adapter("sum")
    model = combined(http, {one["id"]: 0.5, other["id"]: -2.0})
    assert np.abs(computed(theirs) - outputs(http, model["id"])).max() <= 1e-6 * np.abs(computed(theirs)).max()


def test_training_goes_on_from_the_sum_and_it_is_still_said_what_it_was_made_of(http, members) -> None:
    model = combined(http, dict.fromkeys(members[:3], 1.0))
    job = http.post(f"/models/{model['id']}/train", json=TRAIN, headers={"Prefer": "wait=60"}).json()
    assert (job["state"], job["model_version"]) == ("succeeded", 1)
    after = http.get(f"/models/{model['id']}").json()
    assert (after["version"], after["combined"]) == (1, model["combined"])
    twice = combined(http, {model["id"]: 2.0}, rank=2)
    assert twice["combined"]["members"] == [{"model_id": model["id"], "version": 1, "weight": 2.0}]


def test_what_may_not_go_beside_combine_is_refused_with_the_reason(http: httpx.Client, members: list[str]) -> None:
    wrong = {"alpha": 2, "use_rslora": False, "use_dora": False, "init": "kaiming", "bias": True, "train_bias": True}
    for name, value in {**wrong, "seed": 3}.items():
        answer = combine(http, [{"model_id": members[0]}], **{name: value})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{name}")
        assert answer.json()["detail"].startswith(f"{name} may not go beside combine: ")
    assert len(combine(http, [{"model_id": members[0]}], **wrong).json()["errors"]) == len(wrong)


def test_sizes_and_base_may_be_named_where_they_are_those_of_the_members(http: httpx.Client, members: list[str]):
    base_id = http.get(f"/models/{members[0]}").json()["base_id"]
    assert combined(http, {members[0]: 1.0}, base_id=base_id, **SIZES)["base_id"] == base_id
    other = "base_" + "0" * 64
    for fields in ({"in_features": 23}, {"out_features": 11}, {"base_id": other}):
        ((name, value),) = fields.items()
        refused = combine(http, [{"model_id": members[0]}], **fields)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, f"/{name}")
        assert str(value) in refused.json()["detail"]
        assert "leave it out" in refused.json()["detail"]


def test_members_that_cannot_be_added_up_are_refused_by_name(http: httpx.Client, members: list[str]) -> None:
    stranger = created(http, seed=99)
    refused = combine(http, [{"model_id": members[0]}, {"model_id": stranger["id"]}]).json()
    assert (refused["status"], refused["errors"][0]["pointer"]) == (422, "/combine/1/model_id")
    base_id = http.get(f"/models/{members[0]}").json()["base_id"]
    assert all(each in refused["detail"] for each in (members[0], stranger["id"], base_id, stranger["base_id"]))
    refused = combine(http, [{"model_id": members[0]}, {"model_id": NOBODY}]).json()
    assert (refused["status"], refused["type"]) == (404, "/problems/model-not-found")
    assert refused["errors"] == [{"pointer": "/combine/1/model_id", "detail": refused["detail"]}]
    assert NOBODY in refused["detail"]


def test_ranks_that_a_sum_cannot_have_are_refused(http: httpx.Client, members: list[str]) -> None:
    wide = [{"model_id": members[0]}]
    assert combine(http, wide, rank=11).json()["detail"] == (
        "rank is 11; it is at most min(in_features, out_features) = 10"
    )
    refused = combine(http, wide, rank=3).json()
    assert refused["errors"][0]["pointer"] == "/rank"
    assert refused["detail"] == "rank is 3; the members have 2 ranks together, and the sum needs no more"
    refused = combine(http, [*wide, {"model_id": members[-1]}]).json()
    assert (refused["status"], refused["errors"][0]["pointer"]) == (422, "/rank")
    assert "rank is required" in refused["detail"]
    assert members[-1] in refused["detail"]


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ([], "/combine"),
        ([{"model_id": NOBODY}] * (MAX_COMBINED + 1), "/combine"),
        ([{"weight": 1}], "/combine/0/model_id"),
        ([{"model_id": "x"}], "/combine/0/model_id"),
        ([{"model_id": NOBODY, "weight": "1"}], "/combine/0/weight"),
        ([{"model_id": NOBODY, "weight": None}], "/combine/0/weight"),
        ([{"model_id": NOBODY, "wieght": 1}], "/combine/0/wieght"),
        (NOBODY, "/combine"),
    ],
)
def test_a_list_that_is_none_is_refused_where_it_is_wrong(http: httpx.Client, value: Any, pointer: str) -> None:
    refused = http.post("/models", json={"combine": value})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer), refused.text
    if "wieght" in pointer:
        assert "did you mean weight?" in refused.json()["detail"]


def test_weights_that_float32_cannot_follow_are_refused(http: httpx.Client, members: list[str]) -> None:
    for fields in ({}, {"rank": 1}):
        answer = combine(http, [{"model_id": members[0], "weight": 1e308}], **fields)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/non-finite")
    endless = http.post(
        "/models",
        content=f'{{"combine": [{{"model_id": "{members[0]}", "weight": 1e999}}]}}',
        headers={"Content-Type": "application/json"},
    )
    assert endless.status_code in (400, 422)


def test_null_is_no_sum_and_a_sweep_has_none(http: httpx.Client, members: list[str]) -> None:
    assert http.post("/models", json={**SIZES, "combine": None}).json()["combined"] is None
    sweep = {"model": {**SIZES, "combine": None}, "train": {"epochs": 1}, "over": {"rank": [1, 2]}}
    assert http.post("/sweeps", json=sweep).status_code == 202
    sweep["model"] = {"combine": [{"model_id": members[0]}]}
    refused = http.post("/sweeps", json=sweep)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/model/combine")


def test_it_is_made_once_and_found_again_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lora.db"
    with in_thread(database_url=url) as service:
        one = created(service.http, init="normal")
        body = {"combine": [{"model_id": one["id"], "weight": 0.5}, {"model_id": one["id"]}], "rank": 2}
        first = service.http.post("/models", json=body, headers={"Idempotency-Key": "k"})
        assert first.status_code == 201
        again = service.http.post("/models", json=body, headers={"Idempotency-Key": "k"})
        assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
        model = first.json()
        renamed = service.http.patch(f"/models/{model['id']}", json={"name": "kept"}).json()
        before = outputs(service.http, model["id"])
    with in_thread(database_url=url) as service:
        assert [each["combined"] for each in service.http.get("/models").json()["items"]] == [None, model["combined"]]
        assert service.http.get(f"/models/{model['id']}").json() == renamed
        assert np.allclose(outputs(service.http, model["id"]), before, atol=1e-5)
        service.http.delete(f"/models/{one['id']}")  # a sum does not need its members
        assert np.allclose(outputs(service.http, model["id"]), before, atol=1e-5)


def test_sizes_are_checked_before_memory_is_taken() -> None:
    with in_thread(memory_mib=3, layer_mib=1) as service:
        one = service.http.post("/models", json={"in_features": 400, "out_features": 400, "rank": 100}).json()
        refused = service.http.post("/models", json={"combine": [{"model_id": one["id"]}] * 4})
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/limit-exceeded")
        assert "LORA_LAYER_MIB" in refused.json()["detail"]
        refused = service.http.post("/models", json={"combine": [{"model_id": one["id"]}] * 2})
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/capacity-exhausted")
        assert service.engine.budget.used == one["bytes"] + 4 * (400 * 400 + 400)
        assert len(service.http.get("/models").json()["items"]) == 1
