"""Adapters go to PEFT and come from there: one module as a model, or several as its layers."""

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


def test_it_takes_a_model_of_two_layers_to_peft(client: Client, tmp_path: Path) -> None:
    sizes = [(12, 8), (8, 6)]
    layers = [{"in_features": one, "out_features": other, "rank": 2} for one, other in sizes]
    model = client.create(layers=layers, init="normal")
    client.export_peft(model, tmp_path)
    assert adapter_modules(tmp_path / "adapter_model.safetensors") == ["layers.0", "layers.1"]
    assert client.put_adapter(model, tmp_path / "adapter_model.safetensors").version == 1


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
    with pytest.raises(Problem, match=r"adapters of 2 modules \(0, 2\); name one of them as module"):
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


@pytest.mark.parametrize(
    "config", [{"rank_pattern": {"2": 4}, "lora_alpha": 3}, {"use_rslora": True, "bias": "all"}], ids=str
)
def test_the_modules_of_a_network_become_the_layers_of_one_model(
    client: Client, tmp_path: Path, config: dict[str, Any]
) -> None:
    theirs = by_peft(tmp_path, **config)
    bases = [client.upload_base(network()[place].weight, network()[place].bias) for place in (0, 2)]
    layers = [{"base_id": bases[0], "activation": "tanh"}, {"base_id": bases[1]}]
    model = client.import_peft(tmp_path, layers=layers, name="whole")
    assert [layer.rank for layer in model.layers] == [2, config.get("rank_pattern", {}).get("2", 2)]
    assert (model.name, model.version) == ("whole", 1)
    assert client.forward(model, X) == pytest.approx(outputs(theirs, X), abs=1e-5)


def test_layers_must_be_as_many_as_the_modules_and_have_sizes(client: Client, tmp_path: Path) -> None:
    by_peft(tmp_path)
    with pytest.raises(BadSafetensors, match=r"adapters of 2 modules \(0, 2\) for the 3 layers that are given"):
        client.import_peft(tmp_path, layers=[{}, {}, {}])
    with pytest.raises(BadSafetensors, match="9 is none of them"):
        client.import_peft(tmp_path, module=["0", "9"])
    with pytest.raises(Problem, match="in_features and out_features must be given") as caught:
        client.import_peft(tmp_path, module=["0", "2"])
    assert caught.value.errors[0].pointer == "/layers/0/in_features"
