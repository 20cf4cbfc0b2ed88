"""A model of several layers is created, trained, run, kept and taken to PEFT as one."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load, save
from safetensors.torch import save as save_torch
from torch import nn
from torch.nn import functional

from tests.running import in_thread

FILE = {"Content-Type": "application/x-safetensors"}
LAYERS = [
    {"in_features": 12, "out_features": 9, "rank": 4, "alpha": 6.0, "activation": "gelu"},
    {"in_features": 9, "out_features": 7, "rank": 2, "activation": "tanh"},
    {"in_features": 7, "out_features": 5, "rank": 2, "alpha": 3.0},
]
ODD = {"init": "orthogonal"}
TRAIN = {"epochs": 5, "lr": 0.05, "seed": 0, "data": {"kind": "teacher", "n_samples": 60, "teacher_rank": 2, "seed": 1}}
X = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)
ACTIVATIONS = {"relu": functional.relu, "gelu": functional.gelu, "tanh": torch.tanh, "silu": functional.silu}
VARIANTS = [
    {"init": init, "use_dora": use_dora, "use_rslora": use_rslora, "train_bias": train_bias}
    for init, use_dora, use_rslora, train_bias in product(
        ("kaiming", "normal", "gaussian", "orthogonal", "pissa", "olora"), (False, True), (False, True), (False, True)
    )
]


class Network(nn.Module):
    """The layers of a model, plain."""

    def __init__(self, weights: dict[str, np.ndarray], activations: list[str]) -> None:
        super().__init__()
        self.activations = activations
        self.layers = nn.ModuleList()
        for place in range(len(activations) + 1):
            weight, bias = weights[f"{place}.weight"], weights.get(f"{place}.bias")
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            tensors = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
            layer.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
            self.layers.append(layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers[0](x)
        for name, layer in zip(self.activations, list(self.layers)[1:], strict=True):
            y = layer(y if name == "identity" else ACTIVATIONS[name](y))
        return y


def created(http: httpx.Client, layers: Any = LAYERS, **fields: Any) -> dict[str, Any]:
    answer = http.post("/models", json={"layers": layers, "seed": 3, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def trained(http: httpx.Client, layers: Any = LAYERS, **fields: Any) -> dict[str, Any]:
    model = created(http, layers, **fields)
    job = http.post(f"/models/{model['id']}/train", json=TRAIN, headers={"Prefer": "wait=60"}).json()
    assert job["state"] == "succeeded", job
    return model


def plain(http: httpx.Client, model: dict[str, Any]) -> Network:
    """The network that a model stands on."""
    weights = load(http.get(f"/models/{model['id']}/weights").content)
    bases = {name.replace("base.", ""): tensor for name, tensor in weights.items() if ".base." in name}
    return Network(bases, [layer["activation"] for layer in model["layers"][:-1]])


def outputs(http: httpx.Client, model_id: str) -> np.ndarray:
    return np.array(http.post(f"/models/{model_id}/forward", json={"inputs": X.tolist()}).json()["outputs"])


def computed(by: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return by.eval()(torch.from_numpy(X)).numpy()


def must_agree(theirs: nn.Module, ours: np.ndarray, tolerance: float = 1e-6) -> None:
    assert np.abs(computed(theirs) - ours).max() <= tolerance * np.abs(computed(theirs)).max()


def taken(http: httpx.Client, model_id: str, folder: Path) -> Path:
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        answer = http.get(f"/models/{model_id}/adapter/{name}")
        assert answer.status_code == 200, answer.text
        (folder / name).write_bytes(answer.content)
    return folder


def put(http: httpx.Client, model_id: str, body: bytes, **query: str) -> httpx.Response:
    return http.put(f"/models/{model_id}/adapter", content=body, headers=FILE, params=query)


def test_the_answer_tells_of_each_layer_and_counts_them_all(http):
    model = created(http, train_bias=True, name="three")
    own = [model.pop(name) for name in ("base_id", "rank", "alpha", "scaling", "bias")]
    assert own == [None] * 5
    assert (model["in_features"], model["out_features"], model["train_bias"], model["name"]) == (12, 5, True, "three")
    first = model["layers"][0]
    assert (first["rank"], first["alpha"], first["scaling"], first["activation"], first["bias"]) == (
        4,
        6,
        1.5,
        "gelu",
        True,
    )
    assert [layer["activation"] for layer in model["layers"]] == ["gelu", "tanh", None]
    counts = [layer["parameters"] for layer in model["layers"]]
    assert [count["trainable"] for count in counts] == [4 * 21 + 9, 2 * 16 + 7, 2 * 12 + 5]
    total = {name: sum(count[name] for count in counts) for name in ("trainable", "frozen", "total")}
    assert {name: model["parameters"][name] for name in total} == total
    assert http.get(f"/models/{model['id']}").json()["layers"] == model["layers"]
    assert [http.get(f"/bases/{layer['base_id']}").json()["models"] for layer in model["layers"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({"layers": []}, "/layers", "at least 2"),
        ({"layers": LAYERS[:1]}, "/layers", "at least 2"),
        ({"layers": [{"in_features": 4, "out_features": 4}] * 17}, "/layers", "at most 16"),
        ({"layers": LAYERS[::-1]}, "/layers/2/activation", "nothing follows the last"),
        ({"layers": [LAYERS[0], LAYERS[2]]}, "/layers/1/in_features", "the layer before has out_features 9"),
        ({"layers": LAYERS, "in_features": 12}, "/in_features", "each of the layers has its own in_features"),
        ({"layers": LAYERS, "rank": 2}, "/rank", "each of the layers has its own rank"),
        ({"layers": [LAYERS[0], {"out_features": 3}]}, "/layers/1/in_features", "in_features is required"),
        ({"layers": [LAYERS[0], {**LAYERS[1], "rank": 8}, LAYERS[2]]}, "/layers/1/rank", "at most min"),
        (
            {"layers": [LAYERS[0], {"in_features": 9, "out_features": 3}, {**LAYERS[2], "in_features": 3}], **ODD},
            "/layers/1/rank",
            "an even one",
        ),
        ({"layers": [LAYERS[0], {**LAYERS[1], "rank": 0}, LAYERS[2]]}, "/layers/1/rank", "at least 1"),
        ({"layers": [{**LAYERS[0], "activation": "sin"}, *LAYERS[1:]]}, "/layers/0/activation", "'identity'"),
        ({"layers": [{**LAYERS[0], "dropout": 0.1}, *LAYERS[1:]]}, "/layers/0/dropout", "not a field"),
        ({"layers": LAYERS, "bias": False, "train_bias": True}, "/train_bias", "needs a base that has a bias"),
        ({"layers": [LAYERS[0], {"base_id": "base_" + "0" * 64}]}, None, "there is no base"),
    ],
)
def test_what_makes_no_chain_is_refused_with_the_layer_named(http, body, pointer, says):
    before = len(http.get("/bases").json()["items"])
    answer = http.post("/models", json=body)
    assert answer.status_code == (404 if pointer is None else 422), answer.text
    problem = answer.json()
    assert says in json.dumps(problem)
    assert pointer is None or problem["errors"][0]["pointer"] == pointer
    assert len(http.get("/bases").json()["items"]) == before


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: ", ".join(map(str, variant.values())))
def test_peft_loads_a_trained_chain_and_gives_the_same_outputs(http, tmp_path, variant):
    # With A and B of N(0, 1) a scaling of 1 would make hundreds between the layers, whose digits the next one feels.
    layers = [{**layer, "alpha": 0.1} for layer in LAYERS] if variant["init"] == "normal" else LAYERS
    model = trained(http, layers, **variant)
    folder = taken(http, model["id"], tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(plain(http, model), folder)
    ours = outputs(http, model["id"])
    must_agree(theirs, ours)
    merged = Network(load(http.get(f"/models/{model['id']}/merged").content), ["gelu", "tanh"])
    must_agree(merged, ours, 2e-6)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["target_modules"] == ["layers.0", "layers.1", "layers.2"]
    assert set(config["rank_pattern"]) == {"layers.1", "layers.2"}
    other = created(http, layers, **variant)
    file = (folder / "adapter_model.safetensors").read_bytes()
    assert put(http, other["id"], file).json()["version"] == 1
    assert np.array_equal(outputs(http, other["id"]), ours)
    assert http.get(f"/models/{other['id']}/adapter/adapter_model.safetensors").content == file
    weights = load(http.get(f"/models/{model['id']}/weights").content)
    own = save({name: tensor for name, tensor in weights.items() if ".base." not in name})
    assert put(http, other["id"], own).json()["version"] == 2
    assert http.get(f"/models/{other['id']}/adapter/adapter_model.safetensors").content == file


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("init", ["kaiming", "pissa"])
def test_layers_of_ones_own_are_a_chain_in_any_precision(http, tmp_path, dtype, use_dora, bias, init):
    draw = torch.Generator().manual_seed(2)

    def base(out_features: int, in_features: int) -> str:
        tensors = {"weight": torch.randn(out_features, in_features, generator=draw).to(dtype)}
        if bias:
            tensors["bias"] = torch.randn(out_features, generator=draw).to(dtype)
        return http.post("/bases", content=save_torch(tensors), headers=FILE).json()["id"]

    layers = [{"base_id": base(8, 12), "rank": 2, "activation": "relu"}, {"base_id": base(5, 8), "rank": 3}]
    model = trained(http, layers, use_dora=use_dora, init=init)
    assert [layer["bias"] for layer in model["layers"]] == [bias, bias]
    theirs = PeftModel.from_pretrained(plain(http, model), taken(http, model["id"], tmp_path / "adapter"))
    must_agree(theirs, outputs(http, model["id"]))
    busy = http.delete(f"/bases/{layers[1]['base_id']}")
    assert (busy.status_code, busy.json()["type"]) == (409, "/problems/base-busy")
    assert http.delete(f"/models/{model['id']}").status_code == 204
    assert all(http.delete(f"/bases/{layer['base_id']}").status_code == 204 for layer in layers)


def test_what_peft_trained_on_a_network_comes_here_as_a_chain(http, tmp_path):
    model = created(http, [{**layer, "rank": 2, "alpha": 2} for layer in LAYERS])
    network = plain(http, model)
    config = LoraConfig(target_modules=["layers.0", "layers.1", "layers.2"], r=2, lora_alpha=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = get_peft_model(network, config)
    optimizer = torch.optim.Adam([p for p in theirs.parameters() if p.requires_grad], lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        (theirs(torch.from_numpy(X)) ** 2).mean().backward()
        optimizer.step()
    theirs.save_pretrained(tmp_path)
    file = (tmp_path / "adapter_model.safetensors").read_bytes()
    assert put(http, model["id"], file, module="layers").status_code == 200
    must_agree(theirs, outputs(http, model["id"]))
    assert http.get(f"/models/{model['id']}/adapter/adapter_model.safetensors").content == file


def test_a_file_that_is_no_adapter_of_the_chain_is_refused_and_changes_nothing(http):
    model = created(http)["id"]
    before = http.get(f"/models/{model}/adapter/adapter_model.safetensors").content
    good = load(before)
    first = {name: tensor for name, tensor in good.items() if ".layers.0." in name}
    more = {name.replace("layers.2", "layers.3"): tensor for name, tensor in good.items() if ".layers.2." in name}
    wrong = {name: tensor.T.copy() if "layers.1.lora_A" in name else tensor for name, tensor in good.items()}
    for tensors, says in (
        (first, "1 numbered modules"),
        ({**good, **more}, "4 numbered modules"),
        ({**good, "base_model.model.head.lora_A.weight": np.ones((1, 1), np.float32)}, "3 layers"),
        ({name: tensor for name, tensor in good.items() if "layers.1.lora_B" not in name}, "lacks 1.lora_B.weight"),
        (wrong, "1.lora_A.weight has shape"),
    ):
        refused = put(http, model, save(tensors))
        assert refused.status_code == 422
        assert says in refused.json()["detail"]
    assert http.get(f"/models/{model}").json()["version"] == 0
    assert http.get(f"/models/{model}/adapter/adapter_model.safetensors").content == before


def test_it_is_run_beside_others_and_by_the_open_inference_protocol(http):
    chain = trained(http)["id"]
    other = http.post("/models", json={"in_features": 12, "out_features": 5, "init": "normal"}).json()["id"]
    alone = {each: outputs(http, each) for each in (chain, other)}
    items = [{"model_id": each, "inputs": X.tolist()} for each in (chain, other, chain)]
    for item, each in zip(http.post("/forward", json={"items": items}).json()["items"], items, strict=True):
        np.testing.assert_allclose(item["outputs"], alone[each["model_id"]], rtol=1e-5, atol=1e-6)
    body = {"inputs": [{"name": "inputs", "shape": [6, 12], "datatype": "FP32", "data": X.ravel().tolist()}]}
    answer = http.post(f"/v2/models/{chain}/infer", json=body).json()["outputs"][0]
    np.testing.assert_allclose(np.reshape(answer["data"], answer["shape"]), alone[chain], rtol=1e-5, atol=1e-6)


def test_what_is_wide_between_its_layers_is_computed_in_pieces_or_refused(http):
    sizes = [(1, 4_096), (4_096, 1)]
    layers = [{"in_features": one, "out_features": other, "rank": 1} for one, other in sizes]
    model = created(http, layers)["id"]
    x = np.linspace(-1, 1, 30_000, dtype=np.float32)[:, None]
    raw = {"Content-Type": "application/octet-stream"}
    answer = http.post(f"/models/{model}/forward", content=x.tobytes(), headers=raw)
    ends = http.post(f"/models/{model}/forward", json={"inputs": x[[0, -1]].tolist()}).json()["outputs"]
    outputs = np.frombuffer(answer.content, np.float32)
    assert outputs.shape == (30_000,)
    np.testing.assert_allclose(outputs[[0, -1]], np.ravel(ends), rtol=1e-4, atol=1e-5)
    items = {"items": [{"model_id": model, "inputs": x.tolist()}]}
    refused = http.post("/forward", json=items)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/limit-exceeded")
    too_large = http.post("/models", json={"layers": [{"in_features": 65_536, "out_features": 65_536}] * 2})
    assert (too_large.status_code, too_large.json()["errors"][0]["pointer"]) == (422, "/layers")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"optimizer": "closed_form"}, "/optimizer"),
        ({"data": {"kind": "teacher", "teacher_rank": 6}}, "/data/teacher_rank"),
        ({"data": {"kind": "digits"}}, "/loss"),
    ],
)
def test_a_training_that_no_chain_can_have_is_refused(http, body, pointer):
    refused = http.post(f"/models/{created(http)['id']}/train", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == pointer


def test_a_profile_and_a_sweep_are_of_one_layer(http):
    profile = http.post(f"/models/{created(http)['id']}/rank-profile", json={})
    assert (profile.status_code, "that of one layer" in profile.json()["detail"]) == (422, True)
    sweep = http.post("/sweeps", json={"model": {"layers": LAYERS}, "over": {"lr": [0.1, 0.2]}})
    assert (sweep.status_code, sweep.json()["errors"][0]["pointer"]) == (422, "/model/layers")


def test_many_chains_are_trained_in_one_step_and_each_learns_its_own(http):
    models = [created(http, seed=seed) for seed in range(4)]
    jobs = [http.post(f"/models/{model['id']}/train", json={**TRAIN, "epochs": 200}).json() for model in models]
    for job in jobs:
        url = f"/jobs/{job['id']}/events"
        assert http.get(url, headers={"Accept": "text/event-stream"}, timeout=60).status_code == 200
        ended = http.get(f"/jobs/{job['id']}").json()
        assert ended["state"] == "succeeded"
        assert ended["metrics"]["final_loss"] < ended["losses"][0]
        assert "chain" in ended["metrics"]["optimum_unknown"]


def test_a_chain_is_there_after_a_restart_trains_on_and_goes_back(tmp_path):
    database = f"sqlite:///{tmp_path / 'lora.db'}"
    with in_thread(database_url=database) as service:
        model = trained(service.http, use_dora=True, init="pissa")
        was = outputs(service.http, model["id"])
        known = service.http.get(f"/models/{model['id']}").json()
    with in_thread(database_url=database) as service:
        assert service.http.get(f"/models/{model['id']}").json() == known
        assert np.array_equal(outputs(service.http, model["id"]), was)
        job = service.http.post(f"/models/{model['id']}/train", json=TRAIN, headers={"Prefer": "wait=60"}).json()
        assert job["model_version"] == 2
        assert service.http.post(f"/models/{model['id']}/rollback", json={"version": 1}).json()["version"] == 3
        np.testing.assert_allclose(outputs(service.http, model["id"]), was, atol=1e-6)  # perhaps merged by now
        assert service.http.delete(f"/models/{model['id']}").status_code == 204
        assert service.http.get("/bases").json()["items"] == []


def test_each_layer_can_be_looked_at_beside_that_of_another_chain(http):
    layers = [{**layer, "base_id": one["base_id"]} for layer, one in zip(LAYERS, created(http)["layers"], strict=True)]
    for layer in layers:
        del layer["in_features"], layer["out_features"]
    model, other = (trained(http, layers, seed=seed, use_dora=seed == 1)["id"] for seed in (1, 2))
    weights, merged = (load(http.get(f"/models/{model}/{path}").content) for path in ("weights", "merged"))
    for place in range(3):
        seen = http.get(f"/models/{model}/analysis", params={"layer": place, "with": other}).json()
        change = merged[f"{place}.weight"] - weights[f"{place}.base.weight"]
        assert seen["norm"] == pytest.approx(float(np.linalg.norm(change)), rel=1e-4)
        assert seen["heatmaps"]["delta"]["shape"] == list(change.shape)
        assert seen["overlap"]["model_id"] == other
    beyond = http.get(f"/models/{model}/analysis", params={"layer": 3})
    assert (beyond.status_code, beyond.json()["errors"][0]["pointer"]) == (422, "/layer")
    elsewhere = http.get(f"/models/{model}/analysis", params={"with": created(http, seed=9)["id"]})
    assert (elsewhere.status_code, "only changes of one base" in elsewhere.json()["detail"]) == (422, True)


def test_only_models_of_one_layer_add_up(http):
    refused = http.post("/models", json={"combine": [{"model_id": created(http)["id"]}]})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/combine/0/model_id")
