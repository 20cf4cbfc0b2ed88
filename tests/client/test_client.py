"""The Python client against the running service."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from service.client import Client, Problem, adapter_modules
from service.errors import BadSafetensors, Validation
from tests.running import Service

X = np.random.default_rng(0).standard_normal((7, 12)).astype(np.float32)


def test_it_creates_trains_follows_and_runs_a_model(client: Client) -> None:
    model = client.create(in_features=64, out_features=10, rank=4, seed=1)
    job = client.train(model, epochs=3)
    events = list(job.events())
    assert [event.kind for event in events] == ["state", "state", "epoch", "epoch", "epoch", "state", "done"]
    assert [event.data["loss"] for event in events if event.kind == "epoch"] == client.job(job).losses
    assert client.model(model).version == 1
    x = np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)
    w = client.weights(model)
    expected = x @ w["base.weight"].T + w["base.bias"] + (x @ w["lora_A.weight"].T) @ w["lora_B.weight"].T
    assert client.forward(model, x) == pytest.approx(expected, abs=1e-5)
    client.delete(model)


def test_it_lists_versions_runs_one_and_goes_back_to_it(client: Client) -> None:
    model = client.create(in_features=8, out_features=4)
    x = np.ones((2, 8), np.float32)
    before = client.forward(model, x)
    client.train(model, wait=60)
    assert [each.version for each in client.versions(model)] == [1, 0]
    assert client.forward(model, x, version=0) == pytest.approx(before, abs=1e-6)
    assert client.roll_back(model).version == 2
    assert client.roll_back(model, 1).version == 3
    assert client.forward(model, x) == pytest.approx(client.forward(model, x, version=1), abs=1e-6)
    client.delete(model)


def test_it_combines_models_and_looks_at_what_they_change(client: Client) -> None:
    one = client.create(in_features=8, out_features=4, init="normal", seed=1)
    other = client.create(base_id=one.base_id, init="normal", rank=2, seed=2)
    both = client.create(combine=[{"model_id": one}, {"model_id": other, "weight": -0.5}], rank=4)
    x = np.ones((1, 8), np.float32)
    base = client.forward(client.create(base_id=one.base_id), x)
    expected = client.forward(one, x) - 0.5 * (client.forward(other, x) - base)
    assert client.forward(both, x) == pytest.approx(expected, abs=1e-4)
    seen = client.analysis(one, beside=both)
    assert len(seen.singular_values) == 4
    assert 0 < seen.overlap.cosine <= 1
    with pytest.raises(Problem, match="first is 0"):
        client.analysis(one, layer=1)


def test_it_takes_a_model_of_two_layers_to_peft(client: Client, tmp_path: Path) -> None:
    sizes = [(12, 8), (8, 6)]
    layers = [{"in_features": one, "out_features": other, "rank": 2} for one, other in sizes]
    model = client.create(layers=layers, init="normal")
    client.export_peft(model, tmp_path)
    assert adapter_modules(tmp_path / "adapter_model.safetensors") == ["layers.0", "layers.1"]
    assert client.put_adapter(model, tmp_path / "adapter_model.safetensors").version == 1


def test_it_waits_for_a_job_and_cancels_one(client: Client) -> None:
    model = client.create(in_features=8, out_features=4)
    assert client.train(model, wait=60).state == "succeeded"
    job = client.train(model, epochs=10_000, batch_size=1)
    assert job.cancel().state == "cancelled"
    client.delete(model, force=True)


def network() -> nn.Sequential:
    """Two layers for PEFT to adapt."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 6))


def by_peft(folder: Path, **config: Any) -> nn.Module:
    """The network with an adapter of PEFT's that changes it, which also lies in the folder."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        adapted = get_peft_model(network(), LoraConfig(**{"target_modules": ["0", "2"], "r": 2, **config}))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or (parameter.requires_grad and name.endswith("bias")):
                nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(str(folder))
    return adapted.eval()


def outputs(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_base_of_ones_own_is_uploaded_listed_read_and_deleted(client: Client, dtype: Any) -> None:
    weight = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))
    base = client.upload_base(weight.numpy(), np.ones(6), dtype=dtype)
    assert (base.dtype, base.in_features, base.out_features) == (dtype, 12, 6)
    assert client.base(base) == base
    kept = client.base_weights(base)
    assert np.array_equal(kept["weight"], weight.to(getattr(torch, dtype)).float().numpy())
    assert kept["bias"].tolist() == [1] * 6
    assert base.id in [each.id for each in client.bases()]
    client.delete_base(base)
    with pytest.raises(Problem, match="there is no base"):
        client.base(base)


def test_the_bases_of_all_pages_are_listed_once(client: Client) -> None:
    uploaded = [client.upload_base([[float(number)]]).id for number in range(60)]
    listed = [base.id for base in client.bases()]
    assert [each for each in listed if each in uploaded] == sorted(uploaded)
    for base_id in uploaded:
        client.delete_base(base_id)


def test_a_data_set_of_numbers_or_classes_is_uploaded_and_trained_on(client: Client) -> None:
    model = client.create(in_features=12, out_features=6)
    for y, loss in ((X[:, :6], "mse"), (np.arange(7) % 6, "cross_entropy")):
        dataset = client.upload_dataset(X.astype(np.float64), y, weight=np.ones(7))
        assert (dataset.n_samples, dataset.weighted) == (7, True)
        job = client.train(model, wait=60, loss=loss, data=dataset)
        assert job.state == "succeeded", job
    assert client.upload_dataset([[1, 2]], [[1.5]]).targets == "numbers"


def test_the_merged_layer_computes_what_the_model_does(client: Client) -> None:
    model = client.create(in_features=12, out_features=6, init="normal")
    merged = client.merged(model)
    assert client.forward(model, X) == pytest.approx(X @ merged["weight"].T + merged["bias"], abs=1e-4)


def test_an_adapter_goes_into_a_folder_that_peft_loads_and_comes_back_from_there(
    client: Client, tmp_path: Path
) -> None:
    layer = network()[2]
    base = client.upload_base(layer.weight.detach(), layer.bias.detach())
    settings = {"rank": 3, "alpha": 1.5, "use_rslora": True, "dropout": 0.1}
    model = client.create(base_id=base, **settings, init="normal", train_bias=True)
    client.train(model, wait=60, lr=0.1)
    client.export_peft(model, tmp_path / "new" / "folder", module="2")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    hidden = outputs(network()[:2], X)
    theirs = PeftModel.from_pretrained(network(), str(tmp_path / "new" / "folder"))
    assert outputs(theirs.eval(), X) == pytest.approx(client.forward(model, hidden), abs=1e-5)
    again = client.import_peft(tmp_path / "new" / "folder", base, name="again")
    assert {name: getattr(again, name) for name in settings} == settings
    assert (again.train_bias, again.name, again.version) == (True, "again", 1)
    assert client.adapter(again, "2") == client.adapter(model, "2")


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": 3},
        {"use_rslora": True, "bias": "lora_only"},
        {"bias": "all", "init_lora_weights": "gaussian"},
        {"rank_pattern": {"2": 4}, "alpha_pattern": {r"\d": 1.5}},
    ],
    ids=str,
)
def test_each_module_of_a_network_that_peft_adapted_becomes_a_model(
    client: Client, tmp_path: Path, config: dict[str, Any]
) -> None:
    theirs = by_peft(tmp_path, **config)
    assert adapter_modules(tmp_path / "adapter_model.safetensors") == ["0", "2"]
    x = X
    for place in (0, 2):
        layer = network()[place]
        base = client.upload_base(layer.weight.detach(), layer.bias.detach())
        model = client.import_peft(tmp_path, base, str(place))
        x = client.forward(model, x)
        x = np.tanh(x) if place == 0 else x
    assert outputs(theirs, X) == pytest.approx(x, abs=1e-5)


def test_what_the_caller_says_goes_before_what_the_folder_says(client: Client, tmp_path: Path) -> None:
    by_peft(tmp_path, lora_dropout=0.1)
    model = client.import_peft(tmp_path, module="2", in_features=8, out_features=6, dropout=0.0, name="mine")
    assert (model.dropout, model.name, model.rank) == (0, "mine", 2)


def test_an_adapter_is_put_from_a_file_or_from_its_bytes(client: Client, tmp_path: Path) -> None:
    by_peft(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    model = client.create(in_features=12, out_features=8, rank=2)
    assert client.put_adapter(model, file, module="0").version == 1
    assert client.put_adapter(model, file.read_bytes(), module="0").version == 2
    with pytest.raises(Problem, match=r"adapters of 2 modules \(0, 2\); name one of them with module="):
        client.put_adapter(model, file)


def test_of_an_adapter_that_does_not_fit_no_model_stays(client: Client, tmp_path: Path, service: Service) -> None:
    before = len(service.engine.registry.all())
    by_peft(tmp_path)
    with pytest.raises(Problem, match="shape") as caught:
        client.import_peft(tmp_path, module="0", in_features=12, out_features=9)
    assert caught.value.status == 422
    with pytest.raises(Problem, match="in_features and out_features must be given"):
        client.import_peft(tmp_path, module="0")
    with pytest.raises(BadSafetensors, match="name one of them"):
        client.import_peft(tmp_path, in_features=12, out_features=8)
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"fan_in_fan_out": false', '"fan_in_fan_out": true'))
    with pytest.raises(Validation, match="fan_in_fan_out is true"):
        client.import_peft(tmp_path, module="0", in_features=12, out_features=8)
    assert len(service.engine.registry.all()) == before


def test_a_refusal_is_an_exception_with_the_problem_in_it(client: Client) -> None:
    with pytest.raises(Problem, match="rank is 12") as caught:
        client.create(in_features=64, out_features=10, rank=12)
    assert (caught.value.status, caught.value.slug) == (422, "validation")
    assert caught.value.errors[0].pointer == "/rank"
    with pytest.raises(Problem) as caught:
        client.job("job_" + "0" * 26)
    assert caught.value.slug == "job-not-found"


def test_a_service_that_is_not_there_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(ConnectionError, match="does not answer"):
        client.model("mdl_x")


def test_importing_it_imports_neither_torch_nor_fastapi() -> None:
    heavy = "('torch', 'fastapi', 'simdjson', 'sqlalchemy')"
    code = f"import service.client, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
