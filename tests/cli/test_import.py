"""An adapter that PEFT saved becomes a model by one command, or the command says in one line why not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from typer.testing import Result

from tests.cli.terminal import lora as command
from tests.running import Service


def lora(*words: object) -> Result:
    return command("import", *words)


@pytest.fixture
def adapter(tmp_path: Path) -> nn.Module:
    """A network of two layers, adapted and saved, and the first of its layers in a file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
        save_file(network[0].state_dict(), tmp_path / "base.safetensors")
        config = LoraConfig(target_modules=["0", "2"], r=2, lora_alpha=3, init_lora_weights=False)
        adapted = get_peft_model(network, config)
    adapted.save_pretrained(tmp_path / "adapter")
    return adapted


def test_it_prints_the_model_which_gives_what_the_adapted_layer_does(
    service: Service, adapter: nn.Module, tmp_path: Path
) -> None:
    ended = lora(
        tmp_path / "adapter",
        "--base",
        tmp_path / "base.safetensors",
        "--module",
        "0",
        "--name",
        "x",
        "--json",
        "--url",
        service.url,
    )
    assert ended.exit_code == 0, ended.stderr
    model = json.loads(ended.stdout)
    assert (model["rank"], model["alpha"], model["version"], model["name"]) == (2, 3.0, 1, "x")
    x = np.ones((2, 8), np.float32)
    given = service.http.post(f"/models/{model['id']}/forward", json={"inputs": x.tolist()}).json()["outputs"]
    with torch.no_grad():
        expected = adapter.base_model.model[0](torch.from_numpy(x)).numpy()
    assert np.array(given) == pytest.approx(expected, abs=1e-5)
    again = lora(tmp_path / "adapter", "--base", model["base_id"], "--module", "0", "--json", "--url", service.url)
    assert json.loads(again.stdout)["base_id"] == model["base_id"]


def test_what_does_not_fit_is_told_in_one_line_with_a_status_of_its_own(
    service: Service, adapter: nn.Module, tmp_path: Path
) -> None:
    folder, file, here = tmp_path / "adapter", tmp_path / "base.safetensors", ("--url", service.url)
    before = len(service.http.get("/models").json()["items"])
    for words, status, says in (
        ((folder, "--base", file, *here), 2, "adapters of 2 modules (0, 2); name one of them as module"),
        ((folder, "--base", file, "--module", "2", *here), 2, "must be"),
        ((folder, "--base", tmp_path / "nothing", "--module", "0", *here), 2, "No such file"),
        ((tmp_path, "--base", file, "--module", "0", *here), 2, "No such file"),
        ((folder, "--base", folder / "adapter_config.json", *here), 2, "the header claims"),
        ((folder, "--base", file, "--module", "0", "--set", "base=x", *here), 2, "--set base names no field"),
        ((folder, "--base", "base_" + "0" * 64, "--module", "0", *here), 3, "there is no base"),
        ((folder, "--base", file, "--module", "0", "--url", "http://127.0.0.1:9"), 5, "does not answer"),
    ):
        ended = lora(*words)
        assert (ended.exit_code, ended.stdout) == (status, "")
        assert says in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert len(service.http.get("/models").json()["items"]) == before
