"""Adapters go to real PEFT and come back, byte for byte; what does not fit is refused and changes nothing."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, load_peft_weights
from safetensors.numpy import load, save
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch
from torch import nn

from tests.codecs.wire import safetensors_described
from tests.running import until

SIZES = {"in_features": 24, "out_features": 10}
FILE = {"Content-Type": "application/x-safetensors"}
TRAIN = {"epochs": 5, "lr": 0.05, "seed": 0, "data": {"kind": "teacher", "n_samples": 60, "teacher_rank": 2, "seed": 1}}
X = np.random.default_rng(0).standard_normal((7, 24)).astype(np.float32)
ON_THE_BASE = ("pissa", "olora")
INITS = ("kaiming", "normal", "gaussian", "orthogonal", *ON_THE_BASE)
VARIANTS = [
    {"init": init, "use_dora": use_dora, "use_rslora": use_rslora, "train_bias": train_bias, "alpha": alpha}
    for init, use_dora, (use_rslora, alpha), train_bias in product(
        INITS, (False, True), ((False, 1.5), (True, 3.0)), (False, True)
    )
]
EVERY_VARIANT = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: ", ".join(map(str, variant.values())))
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


class Network(nn.Module):
    """What PEFT can adapt: a bare `nn.Linear` it cannot."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            if bias is not None:
                self.linear.bias.copy_(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def created(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/models", json={**SIZES, "rank": 2, "seed": 3, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def trained(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    model = created(http, **fields)
    job = http.post(f"/models/{model['id']}/train", json=TRAIN, headers={"Prefer": "wait=60"}).json()
    assert job["state"] == "succeeded", job
    return model


def network(http: httpx.Client, model_id: str) -> Network:
    """The plain network that a model stands on."""
    tensors = {
        name: torch.from_numpy(array) for name, array in load(http.get(f"/models/{model_id}/weights").content).items()
    }
    return Network(tensors["base.weight"], tensors.get("base.bias"))


def outputs(http: httpx.Client, model_id: str) -> np.ndarray:
    return np.array(http.post(f"/models/{model_id}/forward", json={"inputs": X.tolist()}).json()["outputs"])


def computed(by: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return by.eval()(torch.from_numpy(X)).numpy()


def taken(http: httpx.Client, model_id: str, folder: Path, **query: str) -> Path:
    """The two files of a model's adapter, in a folder as PEFT wants it."""
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        answer = http.get(f"/models/{model_id}/adapter/{name}", params=query)
        assert answer.status_code == 200, answer.text
        (folder / name).write_bytes(answer.content)
    return folder


def put(http: httpx.Client, model_id: str, body: bytes, **request: Any) -> httpx.Response:
    return http.put(f"/models/{model_id}/adapter", content=body, headers=FILE, **request)


@EVERY_VARIANT
def test_peft_loads_a_trained_adapter_and_gives_the_same_outputs(http, tmp_path, variant):
    model = trained(http, **variant, dropout=0.1)
    theirs = PeftModel.from_pretrained(network(http, model["id"]), taken(http, model["id"], tmp_path / "adapter"))
    assert np.abs(computed(theirs) - outputs(http, model["id"])).max() <= 1e-6 * np.abs(computed(theirs)).max()
    merged = load(http.get(f"/models/{model['id']}/merged").content)
    plain = Network(torch.from_numpy(merged["weight"]), torch.from_numpy(merged["bias"]))
    assert np.abs(computed(plain) - computed(theirs)).max() <= 2e-6 * np.abs(computed(theirs)).max()
    ranks = 4 if variant["init"] in ON_THE_BASE else 2
    assert theirs.peft_config["default"].r == ranks
    counted = sum(p.numel() for name, p in theirs.named_parameters() if "lora_" in name)
    frozen = (ranks - 2) * (24 + 10)
    assert counted - frozen + 10 * variant["train_bias"] == model["parameters"]["trainable"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("use_dora", [False, True])
def test_on_an_uploaded_layer_of_any_precision_it_is_the_same(http, tmp_path, init, use_dora, dtype):
    draw = torch.Generator().manual_seed(1)
    tensors = {
        "weight": torch.randn(10, 24, generator=draw).to(dtype),
        "bias": torch.randn(10, generator=draw).to(dtype),
    }
    base = http.post("/bases", content=save_torch(tensors), headers=FILE).json()
    assert base["dtype"] == str(dtype).removeprefix("torch.")
    model = trained(http, base_id=base["id"], init=init, use_dora=use_dora)
    plain = Network(tensors["weight"].float(), tensors["bias"].float())
    theirs = PeftModel.from_pretrained(plain, taken(http, model["id"], tmp_path / "adapter"))
    assert np.abs(computed(theirs) - outputs(http, model["id"])).max() <= 1e-6 * np.abs(computed(theirs)).max()
    there = http.get(f"/bases/{base['id']}/weights").content
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_torch(there).items())


@pytest.mark.parametrize(
    "variant", [each for each in VARIANTS if each["init"] not in ON_THE_BASE], ids=lambda each: str(each.values())
)
def test_an_adapter_that_peft_trained_comes_here_trains_on_and_goes_back(http, tmp_path, variant):
    model = created(http, **variant)
    config = LoraConfig(
        target_modules=["linear"],
        r=2,
        lora_alpha=model["alpha"],
        use_rslora=variant["use_rslora"],
        use_dora=variant["use_dora"],
        bias="lora_only" if variant["train_bias"] else "none",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = get_peft_model(network(http, model["id"]), config)
    trained_there(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    file = (tmp_path / "theirs" / "adapter_model.safetensors").read_bytes()
    answer = put(http, model["id"], file)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["version"], answer.headers["etag"]) == (1, '"1"')
    assert np.abs(computed(theirs) - outputs(http, model["id"])).max() <= 1e-6 * np.abs(computed(theirs)).max()
    assert http.get(f"/models/{model['id']}/adapter/adapter_model.safetensors").content == file
    job = http.post(f"/models/{model['id']}/train", json=TRAIN, headers={"Prefer": "wait=60"}).json()
    assert job["model_version"] == 2
    base = network(http, model["id"])
    again = PeftModel.from_pretrained(base, taken(http, model["id"], tmp_path / "again"))
    assert np.abs(computed(again) - outputs(http, model["id"])).max() <= 1e-6 * np.abs(computed(again)).max()


def trained_there(model: nn.Module) -> nn.Module:
    """The adapter after some steps of PEFT's own."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        (model(torch.from_numpy(X)) ** 2).mean().backward()
        optimizer.step()
    return model


@pytest.mark.filterwarnings("ignore:.*changes the base weights.*:UserWarning")
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("init", ON_THE_BASE)
def test_an_adapter_that_peft_began_on_the_base_comes_here_raw_or_converted(http, tmp_path, init, use_dora):
    model = created(http, init=init, use_dora=use_dora)
    config = LoraConfig(target_modules=["linear"], r=2, lora_alpha=2, use_dora=use_dora, init_lora_weights=init)
    theirs = get_peft_model(network(http, model["id"]), config)
    begun = tmp_path / "begun"
    config.init_lora_weights = True  # as PEFT's guide has it: what is saved is then what is there
    theirs.save_pretrained(begun)
    trained_there(theirs)
    theirs.save_pretrained(tmp_path / "raw")
    config.init_lora_weights = init
    theirs.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(begun))
    if use_dora:  # PEFT's conversion loses the magnitude, so there is nothing here that could be loaded
        lost = put(http, model["id"], (tmp_path / "converted" / "adapter_model.safetensors").read_bytes())
        assert lost.json()["detail"] == "the file lacks lora_magnitude_vector, which this model has"
    files = {"raw": 1e-5} if use_dora else {"raw": 1e-5, "converted": 2e-6}
    for name, tolerance in files.items():  # the raw one needs our start to be theirs
        file = (tmp_path / name / "adapter_model.safetensors").read_bytes()
        answer = put(http, model["id"], file)
        assert answer.status_code == 200, answer.text
        assert np.abs(computed(theirs) - outputs(http, model["id"])).max() <= tolerance * np.abs(computed(theirs)).max()
    there = http.get(f"/models/{model['id']}/adapter/adapter_model.safetensors").content
    assert use_dora or there == file


@EVERY_VARIANT
def test_a_models_own_tensors_come_back_under_the_names_they_went_by(http, variant):
    model, other = trained(http, **variant), created(http, **variant)
    own = load(http.get(f"/models/{model['id']}/weights").content)
    tensors = {name: tensor for name, tensor in own.items() if not name.startswith("base.")}
    ours = {"lora_A_init.weight", "lora_B_init.weight"} if variant["init"] in ON_THE_BASE else set()
    ours |= {"lora_magnitude_vector"} if variant["use_dora"] else set()
    assert set(tensors) == {"lora_A.weight", "lora_B.weight"} | ours | ({"bias"} if variant["train_bias"] else set())
    assert put(http, other["id"], save(tensors)).status_code == 200
    for path in ("weights", "adapter/adapter_model.safetensors", "merged"):
        assert http.get(f"/models/{other['id']}/{path}").content == http.get(f"/models/{model['id']}/{path}").content
    assert np.array_equal(outputs(http, other["id"]), outputs(http, model["id"]))


@pytest.mark.parametrize("init", ON_THE_BASE)
def test_the_trained_ranks_alone_leave_the_frozen_ones_what_they_are(http, init):
    model = trained(http, init=init)
    before = load(http.get(f"/models/{model['id']}/weights").content)
    alone = {name: 2 * before[name] for name in ("lora_A.weight", "lora_B.weight")}
    assert put(http, model["id"], save(alone)).status_code == 200
    after = load(http.get(f"/models/{model['id']}/weights").content)
    assert np.array_equal(after["lora_A.weight"], alone["lora_A.weight"])
    assert all(np.array_equal(after[name], before[name]) for name in ("lora_A_init.weight", "lora_B_init.weight"))
    half = put(http, model["id"], save({**alone, "lora_A_init.weight": before["lora_A_init.weight"]}))
    assert (half.status_code, half.json()["detail"]) == (422, "the file lacks lora_B_init.weight, which this model has")


def test_an_adapter_is_for_the_module_that_is_asked_for(http, tmp_path):
    class Deep(nn.Module):
        def __init__(self, inner: Network) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Identity(), inner])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[1](x)

    model = trained(http)
    folder = taken(http, model["id"], tmp_path / "adapter", module="layers.1.linear")
    theirs = PeftModel.from_pretrained(Deep(network(http, model["id"])), folder)
    assert np.abs(computed(theirs) - outputs(http, model["id"])).max() <= 1e-6 * np.abs(computed(theirs)).max()
    for module in ("", "a..b", "a/b", "x" * 201):
        url = f"/models/{model['id']}/adapter/adapter_config.json"
        assert http.get(url, params={"module": module}).status_code == 422


def test_one_module_of_a_whole_network_is_taken_and_without_a_name_they_are_listed(http):
    model = created(http)
    modules = {
        f"base_model.model.encoder.{place}.fc.{name}": np.full(shape, place, np.float32)
        for place in range(3)
        for name, shape in (("lora_A.weight", (2, 24)), ("lora_B.weight", (10, 2)))
    }
    refused = put(http, model["id"], save(modules)).json()
    assert "adapters of 3 modules (encoder.0.fc, encoder.1.fc, encoder.2.fc); name one" in refused["detail"]
    refused = put(http, model["id"], save(modules), params={"module": "decoder"}).json()
    assert "decoder is none of them" in refused["detail"]
    answer = put(http, model["id"], save(modules), params={"module": "encoder.2.fc"})
    assert answer.json()["version"] == 1
    assert (load(http.get(f"/models/{model['id']}/weights").content)["lora_A.weight"] == 2).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_adapter_of_another_precision_is_taken_as_the_numbers_it_has(http, dtype):
    model = created(http)
    draw = torch.Generator().manual_seed(0)
    tensors = {
        "lora_A.weight": torch.randn(2, 24, generator=draw).to(dtype),
        "lora_B.weight": torch.randn(10, 2, generator=draw).to(dtype),
    }
    assert put(http, model["id"], save_torch(tensors)).status_code == 200
    there = load(http.get(f"/models/{model['id']}/weights").content)
    assert all(np.array_equal(there[name], tensor.float().numpy()) for name, tensor in tensors.items())


def test_a_files_tag_is_its_checksum_and_its_version_is_told(http):
    model = created(http)["id"]
    for path in ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "merged"):
        first = http.get(f"/models/{model}/{path}")
        assert first.headers["x-model-version"] == "0"
        assert http.get(f"/models/{model}/{path}", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    body = save({"lora_A.weight": np.ones((2, 24), np.float32), "lora_B.weight": np.ones((10, 2), np.float32)})
    stale = http.put(f"/models/{model}/adapter", content=body, headers={**FILE, "If-Match": '"7"'})
    assert (stale.status_code, stale.json()["type"]) == (412, "/problems/stale")
    assert http.put(f"/models/{model}/adapter", content=body, headers={**FILE, "If-Match": '"0"'}).status_code == 200


def test_while_a_job_is_active_no_adapter_is_taken(http):
    model = created(http)["id"]
    long = {"epochs": 10_000, "batch_size": 1, "data": {"kind": "random", "n_samples": 500}}
    job = http.post(f"/models/{model}/train", json=long).json()["id"]
    body = save({"lora_A.weight": np.ones((2, 24), np.float32), "lora_B.weight": np.ones((10, 2), np.float32)})
    refused = put(http, model, body)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/model-busy")
    http.post(f"/jobs/{job}/cancel")
    until(lambda: put(http, model, body).status_code == 200)


def wrong_files() -> Iterator[tuple[str, bytes]]:
    """Files that are no adapter of a model of these sizes; each truncation of a small one is among them."""
    A, B = np.ones((2, 24), np.float32), np.ones((10, 2), np.float32)
    good = {"lora_A.weight": A, "lora_B.weight": B}
    peft = {f"base_model.model.linear.{name}": tensor for name, tensor in good.items()}
    whole = save(good)
    header = int.from_bytes(whole[:8], "little") + 8
    yield from ((f"cut at {at}", whole[:at]) for at in (*range(header), *range(header, len(whole), 4)))
    flips = np.random.default_rng(0).integers(8, header, 40)
    yield from ((f"byte {at} flipped", whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]) for at in flips)
    nan, inf = A.copy(), B.astype(np.float64)
    nan[1, 3], inf[0, 0] = np.nan, 1e300
    named = {
        "A alone": {"lora_A.weight": A},
        "a bias that is not trained": {**good, "bias": np.ones(10, np.float32)},
        "another tensor": {**good, "lora_C.weight": A},
        "a rank of 3": {"lora_A.weight": np.ones((3, 24), np.float32), "lora_B.weight": np.ones((10, 3), np.float32)},
        "A the other way round": {"lora_A.weight": A.T.copy(), "lora_B.weight": B},
        "a vector": {"lora_A.weight": A.ravel(), "lora_B.weight": B},
        "not a number": {"lora_A.weight": nan, "lora_B.weight": B},
        "too large a number": {"lora_A.weight": A, "lora_B.weight": inf},
        "integers": {"lora_A.weight": A.astype(np.int32), "lora_B.weight": B},
        "no prefix": {f"linear.{name}": tensor for name, tensor in good.items()},
        "half a prefix": {f"model.linear.{name}": tensor for name, tensor in good.items()},
        "one with a prefix": {"base_model.model.linear.lora_A.weight": A, "lora_B.weight": B},
        "an adapter's name": {
            name.replace("A.", "A.default.").replace("B.", "B.default."): t for name, t in peft.items()
        },
        "a magnitude": {**peft, "base_model.model.linear.lora_magnitude_vector": np.ones(10, np.float32)},
        "a bias of PEFT": {**peft, "base_model.model.linear.base_layer.bias": np.ones(10, np.float32)},
        "a module to save": {**peft, "base_model.model.head.weight": A},
    }
    yield from ((name, save(tensors)) for name, tensors in named.items())
    yield "nothing", save({})
    yield "more shape than bytes", safetensors_described(bytes(8), **{"lora_A.weight": ("F32", [2, 24], [0, 8])})


def test_more_than_two_hundred_files_that_are_no_adapter_are_refused_and_change_nothing(http):
    model = created(http)["id"]
    before = http.get(f"/models/{model}/weights").content
    files = list(wrong_files())
    assert len(files) > 200
    for name, body in files:
        refused = put(http, model, body)
        assert refused.status_code == 422, (name, refused.text)
        problem = refused.json()
        assert problem["errors"], name
        assert len(json.dumps(problem)) < 8_192
    assert http.get(f"/models/{model}").json()["version"] == 0
    assert http.get(f"/models/{model}/weights").content == before


def test_peft_reads_the_file_alone_too(http, tmp_path):
    model = trained(http, train_bias=True)
    weights = load_peft_weights(str(taken(http, model["id"], tmp_path / "adapter")), device="cpu")
    there = load(http.get(f"/models/{model['id']}/weights").content)
    assert {name.removeprefix("base_model.model.linear."): tensor.tolist() for name, tensor in weights.items()} == {
        "lora_A.weight": there["lora_A.weight"].tolist(),
        "lora_B.weight": there["lora_B.weight"].tolist(),
        "base_layer.bias": there["bias"].tolist(),
    }
