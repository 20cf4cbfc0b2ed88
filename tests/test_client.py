"""The Python client against the running service."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from service.client import Client, Problem
from tests.running import Service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def test_it_creates_trains_follows_and_runs_a_model(client: Client) -> None:
    model = client.create(in_features=64, out_features=10, rank=4, seed=1)
    job = client.train(model["id"], epochs=3)
    events = list(client.events(job["id"]))
    assert [kind for kind, _ in events] == ["state", "state", "epoch", "epoch", "epoch", "state", "done"]
    assert [data["loss"] for kind, data in events if kind == "epoch"] == client.job(job["id"])["losses"]
    assert client.model(model["id"])["version"] == 1
    x = np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)
    w = client.weights(model["id"])
    expected = x @ w["base.weight"].T + w["base.bias"] + (x @ w["lora_A.weight"].T) @ w["lora_B.weight"].T
    assert client.forward(model["id"], x) == pytest.approx(expected, abs=1e-5)
    client.delete(model["id"])


def test_it_waits_for_a_job_and_cancels_one(client: Client) -> None:
    model = client.create(in_features=8, out_features=4)
    assert client.train(model["id"], wait=60)["state"] == "succeeded"
    job = client.train(model["id"], epochs=10_000, batch_size=1)
    assert client.cancel(job["id"])["state"] == "cancelled"
    client.delete(model["id"], force=True)


def test_a_refusal_is_an_exception_with_the_problem_in_it(client: Client) -> None:
    with pytest.raises(Problem, match="rank is 12") as caught:
        client.create(in_features=64, out_features=10, rank=12)
    assert (caught.value.status, caught.value.slug) == (422, "validation")
    assert caught.value.body["errors"][0]["pointer"] == "/rank"
    with pytest.raises(Problem) as caught:
        next(client.events("job_" + "0" * 26))
    assert caught.value.slug == "job-not-found"


def test_a_service_that_is_not_there_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(ConnectionError, match="does not answer"):
        client.model("mdl_x")


def test_importing_it_imports_neither_torch_nor_fastapi() -> None:
    heavy = "('torch', 'fastapi', 'pydantic', 'simdjson')"
    code = f"import service.client, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
