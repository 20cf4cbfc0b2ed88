"""The Python client against the running service."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from service.client import Client, Problem

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


def test_the_models_on_a_base_are_listed(client: Client) -> None:
    model = client.create(in_features=12, out_features=6)
    base = client.base(model.base_id)
    for known in (base, base.id):
        assert list(client.models(base_id=known)) == [model]


def test_the_merged_layer_computes_what_the_model_does(client: Client) -> None:
    model = client.create(in_features=12, out_features=6, init="normal")
    merged = client.merged(model)
    assert client.forward(model, X) == pytest.approx(X @ merged["weight"].T + merged["bias"], abs=1e-4)


def test_importing_it_imports_no_torch_and_nothing_of_the_server() -> None:
    heavy = ["torch", "fastapi", "simdjson", "sqlalchemy", "asyncio"]
    code = f"import service.client, sys; print([each for each in {heavy} if each in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    with pytest.raises(ImportError):
        from service.client import Nothing  # noqa: F401
