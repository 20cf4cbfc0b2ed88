"""Arrays of numpy, tensors of torch and lists go in as bytes, and come out as what they were."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from service import errors
from tests.client.servers import scripted

X = np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)


@pytest.fixture
def model(client: Any) -> Any:
    return client.create(in_features=8, out_features=4, init="normal", seed=3)


def computed(client: Any, model: Any, x: np.ndarray) -> np.ndarray:
    """What the weights give, by numpy."""
    merged = client.merged(model)
    return x @ merged["weight"].T + merged["bias"]


NUMBERS = {
    "float32": X,
    "float64": X.astype(np.float64),
    "strided": X.transpose(1, 0, 2),
    "empty": X[:0],
    "list": X.tolist(),
}


@pytest.mark.parametrize("x", NUMBERS.values(), ids=NUMBERS)
def test_numbers_give_an_array_of_numpy(client: Any, model: Any, x: Any) -> None:
    outputs = client.forward(model, x)
    assert type(outputs) is np.ndarray
    assert (outputs.dtype, outputs.shape) == (np.float32, (*np.shape(x)[:-1], 4))
    assert outputs == pytest.approx(computed(client, model, np.asarray(x)), abs=1e-5)
    outputs += 1  # it may be written to


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_a_tensor_gives_a_tensor_without_a_gradient(client: Any, model: Any, dtype: torch.dtype) -> None:
    x = torch.from_numpy(X).to(dtype).requires_grad_()
    outputs = client.forward(model, x)
    assert isinstance(outputs, torch.Tensor)
    assert (outputs.dtype, outputs.device, outputs.requires_grad) == (torch.float32, x.device, False)
    assert outputs.numpy() == pytest.approx(computed(client, model, x.detach().float().numpy()), abs=1e-5)
    assert x.requires_grad


def test_a_version_is_run(client: Any, model: Any) -> None:
    before = client.forward(model, X)
    client.train(model, wait=30, lr=0.1)
    assert client.forward(model, X, version=0) == pytest.approx(before, abs=1e-6)
    assert client.forward(model, X) != pytest.approx(before, abs=1e-3)
    assert client.weights(model, version=0)["lora_A.weight"] != pytest.approx(client.weights(model)["lora_A.weight"])


def test_many_models_run_by_one_request_in_the_order_given(client: Any, model: Any) -> None:
    other = client.create(in_features=8, out_features=3, rank=2, init="normal")
    items = [(model, X), (other.id, torch.from_numpy(X)), *((model, X + number) for number in range(12))]
    outputs = client.forward_many(items)
    assert [type(each) for each in outputs[:3]] == [np.ndarray, torch.Tensor, np.ndarray]
    for (one, x), y in zip(items, outputs, strict=True):
        assert np.asarray(y) == pytest.approx(computed(client, one, np.asarray(x)), abs=1e-4)
    with pytest.raises(errors.ModelNotFound, match="the tensor mdl_0"):
        client.forward_many([(model, X), ("mdl_" + "0" * 26, X)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_base_has_the_dtype_of_its_weight_unless_another_is_named(client: Any, dtype: torch.dtype) -> None:
    weight, bias = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).to(dtype), torch.ones(3)
    base = client.upload_base(weight, bias)
    assert f"torch.{base.dtype}" == str(dtype)
    assert np.array_equal(client.base_weights(base)["weight"], weight.float().numpy())
    assert client.upload_base(weight, bias, dtype="float32").dtype == "float32"


def test_a_data_set_grows_by_rows_of_torch_and_of_numpy(client: Any) -> None:
    x, y = torch.from_numpy(X[0]), torch.tensor([0, 1, 3])
    dataset = client.upload_dataset(x, y, torch.ones(3), keep_rows=True)
    assert (dataset.targets, dataset.weighted) == ("classes", True)
    dataset = client.append_rows(dataset, X[1], np.array([2, 2, 2]), np.ones(3))
    assert (dataset.n_samples, client.dataset(dataset.id)) == (6, dataset)
    assert client.upload_dataset(x, y.double()[:, None], keep_rows=False).keep_rows is False
    assert dataset.id in [each.id for each in client.datasets()]
    client.delete_dataset(dataset)
    with pytest.raises(errors.DatasetNotFound):
        client.dataset(dataset)


def test_forwards_without_torch_import_none() -> None:
    code = (
        "import sys, numpy; from service.client import Client, Unreachable\n"
        "try: Client(sys.argv[1], max_retries=0).forward('mdl_x', numpy.ones((2, 2)))\n"
        "except Unreachable: print('torch' in sys.modules)"
    )
    with scripted(None) as server:
        ended = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("False\n", "")
