"""Models over HTTP: what the contract says of creating, listing, changing, deleting, and taking weights."""

import re

import httpx
import numpy as np
import pytest
from safetensors.numpy import load

from service.ids import BASE_ID, MODEL_ID
from tests.running import Service, in_thread, until

SIZES = {"in_features": 64, "out_features": 10}


def create(http: httpx.Client, **fields: object) -> dict:
    answer = http.post("/models", json={**SIZES, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_two_sizes_are_enough_and_every_other_field_has_its_default(http: httpx.Client) -> None:
    answer = http.post("/models", json=SIZES)
    model = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/models/{model['id']}"
    assert re.fullmatch(MODEL_ID, model["id"])
    assert re.fullmatch(BASE_ID, model["base_id"])
    assert model["created_at"].endswith("Z")
    assert isinstance(model["seed"], int)
    fixed = {name: model[name] for name in model if name not in {"id", "base_id", "seed", "created_at", "updated_at"}}
    assert fixed == {
        **SIZES,
        "rank": 4,
        "alpha": 4.0,
        "scaling": 1.0,
        "use_rslora": False,
        "use_dora": False,
        "init": "kaiming",
        "dropout": 0.0,
        "bias": True,
        "train_bias": False,
        "name": None,
        "metadata": {},
        "version": 0,
        "parameters": {"trainable": 296, "frozen": 650, "total": 946, "trainable_percent": 31.29},
        "bytes": 4 * 296,
        "last_loss": None,
        "combined": None,
        "durable": False,
        "layers": None,
    }


def test_every_field_comes_back_as_it_was_set(http: httpx.Client) -> None:
    fields = {
        "rank": 8,
        "alpha": 16,
        "use_rslora": True,
        "init": "normal",
        "dropout": 0.25,
        "train_bias": True,
        "seed": 7,
        "name": "<b>día</b> 🎈",
        "metadata": {"owner": "me"},
    }
    model = create(http, **fields)
    assert {name: model[name] for name in fields} == fields
    assert model["scaling"] == pytest.approx(16 / 8**0.5)
    assert model["parameters"] == {"trainable": 602, "frozen": 640, "total": 1242, "trainable_percent": 48.47}
    assert http.get(f"/models/{model['id']}").json() == model


def test_a_trained_bias_counts_as_trainable(http: httpx.Client) -> None:
    parameters = create(http, train_bias=True)["parameters"]
    assert (parameters["trainable"], parameters["total"]) == (306, 946)


def test_the_same_seed_gives_the_same_base_and_the_same_weights(http: httpx.Client) -> None:
    first, second = create(http, seed=3), create(http, seed=3)
    assert first["base_id"] == second["base_id"]
    one, two = (load(http.get(f"/models/{model['id']}/weights").content) for model in (first, second))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_model_can_stand_on_the_base_of_another(http: httpx.Client) -> None:
    first = create(http, bias=False)
    second = http.post("/models", json={"base_id": first["base_id"], "rank": 2}).json()
    assert second["base_id"] == first["base_id"]
    assert (second["in_features"], second["out_features"], second["bias"]) == (64, 10, False)
    one, two = (load(http.get(f"/models/{model['id']}/weights").content) for model in (first, second))
    assert np.array_equal(one["base.weight"], two["base.weight"])


def test_a_size_that_the_base_does_not_have_is_refused(http: httpx.Client) -> None:
    base_id = create(http)["base_id"]
    answer = http.post("/models", json={"base_id": base_id, "in_features": 32})
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/shape-mismatch"
    assert "in_features is 32; the base has 64" in answer.json()["detail"]


def test_weights_are_safetensors_under_the_names_of_peft(http: httpx.Client) -> None:
    model = create(http, train_bias=True)
    answer = http.get(f"/models/{model['id']}/weights")
    assert answer.headers["content-type"] == "application/x-safetensors"
    assert answer.headers["x-model-version"] == "0"
    shapes = {name: tensor.shape for name, tensor in load(answer.content).items()}
    assert shapes == {
        "base.weight": (10, 64),
        "base.bias": (10,),
        "lora_A.weight": (4, 64),
        "lora_B.weight": (10, 4),
        "bias": (10,),
    }


def test_without_a_rank_small_layers_get_the_one_they_can_have(http: httpx.Client) -> None:
    small = create(http, in_features=3, out_features=1)
    assert (small["rank"], small["alpha"]) == (1, 1.0)
    assert http.post("/models", json={"base_id": small["base_id"]}).json()["rank"] == 1
    layers = [{"in_features": 9, "out_features": 2}, {"in_features": 2, "out_features": 7, "rank": 1}]
    layered = http.post("/models", json={"layers": layers}).json()
    assert [layer["rank"] for layer in layered["layers"]] == [2, 1]
    refused = http.post("/models", json={**SIZES, "in_features": 3, "rank": 4}).json()
    assert refused["detail"] == "rank is 4; it is at most min(in_features, out_features) = 3"


def test_pages_list_every_model_once_in_the_order_of_creation() -> None:
    with in_thread() as service:
        ids = [create(service.http, name="odd" if i % 2 else "even")["id"] for i in range(7)]
        seen: list[str] = []
        path: str | None = "/models?limit=3"
        while path:
            answer = service.http.get(path)
            seen += [item["id"] for item in answer.json()["items"]]
            path = answer.links["next"]["url"] if "next" in answer.links else None
            assert (path is None) == (answer.json()["next_cursor"] is None)
        assert seen == ids
        assert [item["id"] for item in service.http.get("/models?name=odd").json()["items"]] == ids[1::2]


def test_a_deleted_model_does_not_upset_the_paging(http: httpx.Client) -> None:
    ids = [create(http, name="paged")["id"] for _ in range(4)]
    first = http.get("/models", params={"limit": 2, "name": "paged"}).json()
    http.delete(f"/models/{ids[1]}")
    rest = http.get("/models", params={"limit": 2, "name": "paged", "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in rest["items"]] == ids[2:]


def test_a_cursor_of_another_list_is_refused(http: httpx.Client) -> None:
    for _ in range(2):
        create(http, name="cursor")
    cursor = http.get("/models", params={"limit": 1, "name": "cursor"}).json()["next_cursor"]
    for path, forged in (("/jobs", cursor), ("/models", cursor), ("/models", "AAAA"), ("/models", "é")):
        answer = http.get(path, params={"cursor": forged})
        assert answer.status_code == 400
        assert answer.json()["type"] == "/problems/bad-cursor"


def test_patch_changes_only_what_is_sent(http: httpx.Client) -> None:
    model = create(http, name="a", metadata={"k": "v"})
    renamed = http.patch(f"/models/{model['id']}", json={"name": "b"}).json()
    assert (renamed["name"], renamed["metadata"], renamed["version"]) == ("b", {"k": "v"}, 0)
    assert renamed["updated_at"] > model["updated_at"]
    cleared = http.patch(f"/models/{model['id']}", json={"name": None, "metadata": {}}).json()
    assert (cleared["name"], cleared["metadata"]) == (None, {})


def test_a_deleted_model_is_gone_and_its_base_with_it(http: httpx.Client) -> None:
    model = create(http)
    assert http.delete(f"/models/{model['id']}").status_code == 204
    for method, path in (("GET", ""), ("GET", "/weights"), ("POST", "/train"), ("PATCH", ""), ("DELETE", "")):
        answer = http.request(method, f"/models/{model['id']}{path}", json={} if method in ("POST", "PATCH") else None)
        assert answer.status_code == 404
        assert answer.json()["type"] == "/problems/model-not-found"
    again = http.post("/models", json={"base_id": model["base_id"]})
    assert again.json()["type"] == "/problems/base-not-found"


def test_a_busy_model_is_deleted_only_by_force_and_its_job_stays_readable(service: Service) -> None:
    http = service.http
    model = create(http)
    job = http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 10}).json()
    refused = http.delete(f"/models/{model['id']}")
    assert refused.status_code == 409
    assert refused.json()["type"] == "/problems/model-busy"
    assert http.delete(f"/models/{model['id']}?force=true").status_code == 204
    assert http.get(f"/jobs/{job['id']}").json()["state"] == "cancelled"
    until(lambda: len(service.engine.queue) == 0)


def test_memory_that_is_used_up_is_said_before_it_is_taken() -> None:
    with in_thread(memory_mib=1) as service:
        wide = {"in_features": 512, "out_features": 256, "rank": 1}
        assert service.http.post("/models", json=wide).status_code == 201
        answer = service.http.post("/models", json=wide)
        assert answer.status_code == 409
        problem = answer.json()
        assert problem["type"] == "/problems/capacity-exhausted"
        assert problem["limit"] == 2**20
        assert problem["in_use"] == service.engine.budget.used
        assert "LORA_MEMORY_MIB" in problem["detail"]


def test_one_model_too_many_is_refused_and_a_deletion_makes_room() -> None:
    with in_thread(max_models=2) as service:
        ids = [create(service.http)["id"] for _ in range(2)]
        assert service.http.post("/models", json=SIZES).json()["type"] == "/problems/capacity-exhausted"
        service.http.delete(f"/models/{ids[0]}")
        assert service.http.post("/models", json=SIZES).status_code == 201


@pytest.mark.parametrize("path", ["/models", "/jobs", "/bases", "/datasets", "/sweeps"])
def test_a_list_reads_backwards_page_by_page(http: httpx.Client, path: str) -> None:
    model = create(http, name="order")
    http.post(f"/models/{model['id']}/train", json={"epochs": 1}, headers={"Prefer": "wait=30"})
    create(http, name="order", seed=7)
    forwards = [item["id"] for item in http.get(path, params={"limit": 200}).json()["items"]]
    backwards: list[str] = []
    page = {"next_cursor": None}
    while not backwards or page["next_cursor"]:
        given = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
        page = http.get(path, params={"order": "desc", "limit": 3, **given}).json()
        backwards += [item["id"] for item in page["items"]]
        if not page["items"]:
            break
    assert backwards[: len(forwards)] == sorted(backwards, reverse=True)[: len(forwards)]
    assert set(forwards) <= set(backwards)


def test_a_cursor_belongs_to_one_order(http: httpx.Client) -> None:
    for _ in range(2):
        create(http)
    cursor = http.get("/models", params={"limit": 1, "order": "desc"}).json()["next_cursor"]
    assert http.get("/models", params={"cursor": cursor}).json()["type"] == "/problems/bad-cursor"
    assert http.get("/models", params={"order": "newest"}).status_code == 422


def test_models_are_found_by_a_part_of_their_name_or_id(http: httpx.Client) -> None:
    model, other = create(http, name="Straße nach Norden"), create(http)
    for text in ("STRASSE", "nord", model["id"][-8:].lower()):
        found = [item["id"] for item in http.get("/models", params={"search": text}).json()["items"]]
        assert model["id"] in found
        assert other["id"] not in found
    assert http.get("/models", params={"search": "Straße\nmdl"}).json()["items"] == []


def test_the_models_on_a_base_are_listed_those_of_several_layers_too(http: httpx.Client) -> None:
    model, other = create(http), create(http)
    base = {"base_id": model["base_id"]}
    last = {"in_features": 10, "out_features": 4}
    layered = http.post("/models", json={"layers": [base, last]}).json()
    ids = [item["id"] for item in http.get("/models", params=base).json()["items"]]
    assert ids == [model["id"], layered["id"]]
    cursor = http.get("/models", params={**base, "limit": 1}).json()["next_cursor"]
    for query in ({}, {"base_id": other["base_id"]}):
        assert http.get("/models", params={**query, "cursor": cursor}).json()["type"] == "/problems/bad-cursor"
    assert "it must be the id of a base" in http.get("/models", params={"base_id": "mine"}).json()["detail"]
