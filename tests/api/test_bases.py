"""Frozen layers of one's own: named by their content, shared by models, never changed by any of them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch_bare

from tests.codecs.wire import safetensors_described
from tests.running import in_thread

FILE = {"Content-Type": "application/x-safetensors"}
DRAW = torch.Generator().manual_seed(0)
WEIGHT, BIAS = torch.randn(6, 9, generator=DRAW), torch.randn(6, generator=DRAW)
X = torch.randn(4, 9, generator=DRAW)


def save_torch(tensors: dict[str, torch.Tensor]) -> bytes:
    """A file as Hugging Face's tools write it."""
    return save_torch_bare(tensors, {"format": "pt"})


def upload(http: httpx.Client, body: bytes, status: int = 201, **headers: str) -> Any:
    answer = http.post("/bases", content=body, headers={**FILE, **headers})
    assert answer.status_code == status, answer.text
    return answer.json()


def on(http: httpx.Client, base_id: str, **fields: Any) -> dict[str, Any]:
    answer = http.post("/models", json={"base_id": base_id, "rank": 2, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def outputs(http: httpx.Client, model_id: str) -> np.ndarray:
    return np.array(http.post(f"/models/{model_id}/forward", json={"inputs": X.tolist()}).json()["outputs"])


@pytest.fixture
def alone() -> Iterator[httpx.Client]:
    with in_thread() as service:
        yield service.http


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_comes_and_goes_as_it_was_and_is_computed_in_float32(alone, dtype, bias):
    tensors = {"weight": WEIGHT.to(dtype), **({"bias": BIAS.to(dtype)} if bias else {})}
    base = upload(alone, save_torch(tensors))
    assert base == {
        "id": base["id"],
        "in_features": 9,
        "out_features": 6,
        "bias": bias,
        "dtype": str(dtype).removeprefix("torch."),
        "bytes": 4 * (54 + 6 * bias),
        "models": 0,
        "uploaded": True,
        "created_at": base["created_at"],
        "durable": False,
    }
    there = load_torch(alone.get(f"/bases/{base['id']}/weights").content)
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in there.items()} == {
        name: (tensor.dtype, tensor.tolist()) for name, tensor in tensors.items()
    }
    model = on(alone, base["id"])
    assert (model["in_features"], model["out_features"], model["bias"]) == (9, 6, bias)
    expected = torch.nn.functional.linear(X, *(tensor.float() for tensor in tensors.values()))
    assert np.abs(outputs(alone, model["id"]) - expected.numpy()).max() <= 1e-6


def test_the_same_weights_have_the_same_id_and_are_kept_once(alone):
    body = save_torch({"weight": WEIGHT, "bias": BIAS})
    first, again = upload(alone, body), upload(alone, body, 200)
    assert again == first
    others = [
        upload(alone, save_torch({"weight": WEIGHT})),
        upload(alone, save_torch({"weight": WEIGHT.bfloat16(), "bias": BIAS.bfloat16()})),
    ]
    ids = sorted(base["id"] for base in (first, *others))
    listed = alone.get("/bases", params={"limit": 2}).json()
    rest = alone.get("/bases", params={"limit": 2, "cursor": listed["next_cursor"]}).json()
    assert [base["id"] for base in (*listed["items"], *rest["items"])] == ids
    assert rest["next_cursor"] is None


def test_an_uploaded_base_outlives_its_models_and_no_model_changes_it(alone):
    body = save_torch({"weight": WEIGHT, "bias": BIAS})
    base = upload(alone, body)["id"]
    models = [on(alone, base, init="normal", train_bias=True)["id"] for _ in range(2)]
    train = {"epochs": 3, "data": {"kind": "random", "n_samples": 20}}
    job = alone.post(f"/models/{models[0]}/train", json=train, headers={"Prefer": "wait=60"}).json()
    assert job["state"] == "succeeded"
    assert alone.get(f"/bases/{base}").json()["models"] == 2
    refused = alone.delete(f"/bases/{base}")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/base-busy")
    assert "2 models stand on base" in refused.json()["detail"]
    (path,) = re.findall("GET (/models.+) lists them", refused.json()["detail"])
    assert [model["id"] for model in alone.get(path).json()["items"]] == models
    for model in models:
        alone.delete(f"/models/{model}")
    assert alone.get(f"/bases/{base}/weights").content == body
    assert "lora_bases 1.0" in alone.get("/metrics").text
    assert alone.delete(f"/bases/{base}").status_code == 204
    assert alone.get(f"/bases/{base}").status_code == 404
    assert alone.get(f"/bases/{base}/weights").status_code == 404
    refused = alone.post("/models", json={"base_id": base})
    assert (refused.status_code, refused.json()["type"]) == (404, "/problems/base-not-found")


def test_a_base_that_came_with_a_model_stays_once_it_is_uploaded(alone):
    model = alone.post("/models", json={"in_features": 9, "out_features": 6, "seed": 1}).json()
    tensors = load_torch(alone.get(f"/models/{model['id']}/weights").content)
    body = save_torch({name: tensors[f"base.{name}"] for name in ("weight", "bias")})
    assert alone.get(f"/bases/{model['base_id']}").json()["uploaded"] is False
    known = upload(alone, body, 200)
    assert (known["id"], known["uploaded"], known["models"]) == (model["base_id"], True, 1)
    alone.delete(f"/models/{model['id']}")
    assert alone.get(f"/bases/{model['base_id']}/weights").content == body


def test_a_base_that_came_with_a_model_can_be_uploaded_where_a_disk_has_it_too(tmp_path: Path):
    with in_thread(database_url=f"sqlite:///{tmp_path}/lora.db") as service:
        model = service.http.post("/models", json={"in_features": 9, "out_features": 6, "seed": 1}).json()
        body = service.http.get(f"/bases/{model['base_id']}/weights").content
        assert upload(service.http, body, 200)["uploaded"] is True
        service.http.delete(f"/models/{model['id']}")
    with in_thread(database_url=f"sqlite:///{tmp_path}/lora.db") as service:
        assert service.http.get(f"/bases/{model['base_id']}/weights").content == body


def test_the_closed_form_and_the_moments_reach_the_optimum_on_an_uploaded_base(http):
    base = upload(http, save_torch({"weight": WEIGHT * 2}))["id"]
    data = {"kind": "teacher", "n_samples": 200, "teacher_rank": 2, "seed": 1}
    for train in ({"optimizer": "closed_form", "data": data}, {"epochs": 3_000, "lr": 0.02, "data": data}):
        model = on(http, base)["id"]
        job = http.post(f"/models/{model}/train", json=train, headers={"Prefer": "wait=60"}).json()
        assert job["path"] == "moments", job
        assert job["metrics"]["gap_closed"] > 0.999
        http.delete(f"/models/{model}")
    http.delete(f"/bases/{base}")


def test_a_repeat_under_a_key_gets_the_first_answer(http):
    body = save_torch({"weight": WEIGHT * 3})
    first = upload(http, body, **{"Idempotency-Key": "a base"})
    again = http.post("/bases", content=body, headers={**FILE, "Idempotency-Key": "a base"})
    assert (again.status_code, again.json(), again.headers["idempotency-replayed"]) == (201, first, "true")
    http.delete(f"/bases/{first['id']}")


def wrong_files() -> Iterator[tuple[str, bytes]]:
    whole = save_torch({"weight": WEIGHT, "bias": BIAS})
    header = int.from_bytes(whole[:8], "little") + 8
    yield from ((f"cut at {at}", whole[:at]) for at in (*range(header), *range(header, len(whole), 4)))
    weight, bias = WEIGHT.numpy(), BIAS.numpy()
    nan = weight.copy()
    nan[2, 3] = np.nan
    named = {
        "no weight": {"bias": bias},
        "another tensor": {"weight": weight, "other": bias},
        "a vector": {"weight": bias},
        "three dimensions": {"weight": weight[None]},
        "no rows": {"weight": weight[:0]},
        "no columns": {"weight": weight[:, :0]},
        "too many features": {"weight": np.zeros((65_537, 1), np.float32)},
        "a bias that is too short": {"weight": weight, "bias": bias[:5]},
        "a bias of two dimensions": {"weight": weight, "bias": bias[None]},
        "not a number": {"weight": nan},
        "too large a number": {"weight": weight.astype(np.float64) * 1e39},
        "integers": {"weight": weight.astype(np.int8)},
    }
    yield from ((name, save(tensors)) for name, tensors in named.items())
    yield "more shape than bytes", safetensors_described(bytes(8), weight=("F32", [6, 9], [0, 8]))


def test_every_file_that_is_no_layer_is_refused_and_leaves_nothing(alone):
    files = list(wrong_files())
    assert len(files) > 150
    for name, body in files:
        refused = alone.post("/bases", content=body, headers=FILE)
        assert refused.status_code == 422, (name, refused.text)
        assert refused.json()["errors"], name
    assert alone.get("/bases").json()["items"] == []
    assert alone.post("/bases", content=b"{}", headers={"Content-Type": "application/json"}).status_code == 415


def test_a_base_is_checked_against_what_a_layer_may_take():
    with in_thread(layer_mib=1) as service:
        refused = service.http.post("/bases", content=save({"weight": np.ones((600, 600), np.float32)}), headers=FILE)
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/limit-exceeded")
        assert "LORA_LAYER_MIB" in refused.json()["detail"]
        assert service.engine.budget.used == 0


def test_an_uploaded_base_is_there_after_a_restart_with_the_bytes_that_came(tmp_path: Path):
    body = save_torch({"weight": WEIGHT.bfloat16()})
    with in_thread(database_url=f"sqlite:///{tmp_path}/lora.db") as service:
        base = upload(service.http, body)
        assert base["durable"] is True
        assert service.engine.budget.used == 0  # the disk has it, and nothing needs it yet
        model = on(service.http, base["id"], init="normal")["id"]
        before = outputs(service.http, model)
    with in_thread(database_url=f"sqlite:///{tmp_path}/lora.db") as service:
        assert service.http.get(f"/bases/{base['id']}").json() == {**base, "models": 1}
        assert np.array_equal(outputs(service.http, model), before)
        service.http.delete(f"/models/{model}")
    with in_thread(database_url=f"sqlite:///{tmp_path}/lora.db") as service:
        assert service.http.get(f"/bases/{base['id']}/weights").content == body
        assert service.http.delete(f"/bases/{base['id']}").status_code == 204
    with in_thread(database_url=f"sqlite:///{tmp_path}/lora.db") as service:
        assert service.http.get("/bases").json()["items"] == []
