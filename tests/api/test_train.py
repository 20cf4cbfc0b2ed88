"""Training over HTTP: its numbers are those of a plain PyTorch loop, and its rules those of the contract."""

import statistics

import httpx
import numpy as np
import pytest
import torch
from safetensors.numpy import load

from service.ids import JOB_ID
from service.training import digits
from tests.reference import train as reference
from tests.running import Service, in_thread, until

SIZES = {"in_features": 64, "out_features": 10}
LOSSES = ("mse", "mae", "huber", "cross_entropy", "bce_with_logits", "cosine")
OPTIMIZERS: tuple[dict, ...] = (
    {"optimizer": "adam"},
    {"optimizer": "adam", "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1},
    {"optimizer": "adamw"},
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01},
)


def create(http: httpx.Client, **fields: object) -> dict:
    return http.post("/models", json={**SIZES, **fields}).json()


def trained(http: httpx.Client, model_id: str, **plan: object) -> dict:
    answer = http.post(f"/models/{model_id}/train", json=plan, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert job["state"] == "succeeded", job
    return job


def tensors(http: httpx.Client, model_id: str) -> dict[str, torch.Tensor]:
    """The weights as the reference loop names them."""
    names = {
        "base.weight": "weight",
        "base.bias": "bias",
        "lora_A.weight": "A",
        "lora_B.weight": "B",
        "bias": "own_bias",
    }
    loaded = load(http.get(f"/models/{model_id}/weights").content)
    return {names[name]: torch.from_numpy(np.array(tensor)) for name, tensor in loaded.items()}


def rows(loss: str) -> tuple[torch.Tensor, torch.Tensor]:
    """51 inputs, and targets that fit the loss; of an even number mae's ±1 could add up to rounding alone."""
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(51, 64, generator=draw)
    if loss == "cross_entropy":
        return x, torch.randint(0, 10, (51,), generator=draw)
    if loss == "bce_with_logits":
        return x, torch.rand(51, 10, generator=draw)
    return x, torch.randn(51, 10, generator=draw)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_equal_a_plain_autograd_loop_from_the_same_weights(
    http: httpx.Client, loss: str, optimizer: dict
) -> None:
    model = create(http, init="normal", train_bias=True, alpha=1, seed=11)
    before = tensors(http, model["id"])
    x, y = rows(loss)
    data = {"kind": "inline", "x": x.tolist(), "y": y.tolist()}
    job = trained(http, model["id"], loss=loss, data=data, lr=0.01, **optimizer)
    expected, weights = reference(before, model["scaling"], x, y, loss=loss, epochs=10, lr=0.01, **optimizer)
    assert job["losses"] == pytest.approx(expected, rel=1e-5)
    after = tensors(http, model["id"])
    for name in ("A", "B", "own_bias"):
        assert torch.allclose(after[name], weights[name], rtol=1e-3, atol=1e-4)
    assert torch.equal(after["weight"], before["weight"])
    assert torch.equal(after["bias"], before["bias"])


def test_with_train_bias_false_the_bias_stays_frozen(http: httpx.Client) -> None:
    model = create(http, seed=1)
    before = tensors(http, model["id"])
    trained(http, model["id"])
    after = tensors(http, model["id"])
    assert torch.equal(after["bias"], before["bias"])
    assert torch.equal(after["weight"], before["weight"])
    assert not torch.equal(after["B"], before["B"])


def test_no_body_at_all_is_ten_epochs_of_adam_on_a_thousand_random_rows(service: Service) -> None:
    http = service.http
    model = create(http, init="normal")
    answer = http.post(f"/models/{model['id']}/train")
    accepted = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{accepted['id']}"
    assert JOB_ID.strip("^$").startswith("job_")
    assert accepted["state"] == "queued"
    until(lambda: http.get(f"/jobs/{accepted['id']}").json()["state"] == "succeeded")
    job = http.get(f"/jobs/{accepted['id']}").json()
    seed = job["plan"]["seed"]
    assert job["plan"] == {
        "epochs": 10,
        "lr": 0.01,
        "optimizer": "adam",
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "momentum": None,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "max_grad_norm": None,
        "lr_b_ratio": 1.0,
        "loss": "mse",
        "batch_size": None,
        "seed": seed,
        "data": {"kind": "random", "n_samples": 1000, "seed": seed},
        "validation": None,
        "early_stopping": None,
        "continue_from": None,
        "path": "moments",
    }
    assert (job["epoch"], job["epochs"], len(job["losses"])) == (10, 10, 10)
    assert job["losses"] == sorted(job["losses"], reverse=True)
    assert job["metrics"]["final_loss"] < job["losses"][-1]
    assert (job["model_version"], job["reason"], job["model_id"]) == (1, None, model["id"])
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["duration_seconds"] > 0
    after = http.get(f"/models/{model['id']}").json()
    assert (after["version"], after["last_loss"]) == (1, job["metrics"]["final_loss"])


def test_the_seed_in_the_plan_repeats_the_run(http: httpx.Client) -> None:
    plan = {"batch_size": 32, "epochs": 3, "data": {"kind": "teacher", "n_samples": 200, "noise": 0.1}}
    first = trained(http, create(http, seed=1, dropout=0.2)["id"], **plan)
    again = trained(http, create(http, seed=1, dropout=0.2)["id"], **{**plan, "seed": first["plan"]["seed"]})
    other = trained(http, create(http, seed=1, dropout=0.2)["id"], **{**plan, "seed": first["plan"]["seed"] + 1})
    assert again["losses"] == first["losses"] != other["losses"]
    assert again["plan"] == first["plan"]
    assert again["plan"]["data"]["teacher_rank"] == 4


def test_final_loss_is_that_of_the_published_weights_over_all_rows(http: httpx.Client) -> None:
    model = create(http, seed=2)
    job = trained(http, model["id"], data={"kind": "digits"}, loss="cross_entropy", batch_size=64, epochs=2)
    x, y = digits.load("train")
    body = {"Content-Type": "application/octet-stream"}
    outputs = http.post(f"/models/{model['id']}/forward", content=x.tobytes(), headers=body).content
    scores = torch.frombuffer(bytearray(outputs), dtype=torch.float32).view(-1, 10)
    expected = torch.nn.functional.cross_entropy(scores, torch.from_numpy(y)).item()
    assert job["metrics"]["final_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_second_job_goes_on_from_the_version_of_the_first(http: httpx.Client) -> None:
    model = create(http, init="normal", seed=4)
    plan = {"seed": 9}
    first = trained(http, model["id"], **plan)
    second = trained(http, model["id"], **plan)
    assert second["losses"][0] == pytest.approx(first["metrics"]["final_loss"], rel=1e-6)
    assert (first["model_version"], second["model_version"]) == (1, 2)


def test_a_diverging_loss_fails_the_job_and_leaves_the_model_alone(http: httpx.Client) -> None:
    model = create(http, init="normal", seed=1)
    before = http.get(f"/models/{model['id']}/weights").content
    answer = http.post(
        f"/models/{model['id']}/train", json={"optimizer": "sgd", "lr": 1e6}, headers={"Prefer": "wait=60"}
    )
    job = answer.json()
    assert (answer.status_code, job["state"], job["reason"]) == (200, "failed", "diverged")
    assert 0 < len(job["losses"]) == job["epoch"] < 10
    assert all(np.isfinite(job["losses"]))
    assert job["model_version"] is None
    assert job["detail"]
    assert http.get(f"/models/{model['id']}").json()["version"] == 0
    assert http.get(f"/models/{model['id']}/weights").content == before


def test_prefer_wait_answers_202_when_the_time_is_up(http: httpx.Client) -> None:
    model = create(http)
    answer = http.post(
        f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 5}, headers={"Prefer": "wait=0"}
    )
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=0"
    assert answer.headers["retry-after"] == "1"
    assert http.post(f"/jobs/{answer.json()['id']}/cancel").json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [("wait=7", "wait=7"), ("wait=3600", "wait=60"), ("respond-async, wait=5", "wait=5"), ('wait="4"', "wait=4")],
)
def test_prefer_wait_is_read_as_rfc_7240_writes_it(http: httpx.Client, prefer: str, applied: str) -> None:
    answer = http.post(f"/models/{create(http)['id']}/train", headers={"Prefer": prefer})
    assert answer.status_code in (200, 202)  # a slow machine may take longer than the wait
    assert answer.headers["preference-applied"] == applied


@pytest.mark.parametrize("prefer", ["return=minimal", "await=5", "wait=soon", "wait"])
def test_other_preferences_are_ignored(http: httpx.Client, prefer: str) -> None:
    answer = http.post(f"/models/{create(http)['id']}/train", headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_a_full_queue_is_503_with_retry_after_and_empties_again() -> None:
    with in_thread(queue_max=2) as service:
        http = service.http
        service.wait_for_workers()
        model = create(http)
        long = {"epochs": 10_000, "batch_size": 1}
        running = http.post(f"/models/{model['id']}/train", json=long).json()["id"]
        until(lambda: http.get(f"/jobs/{running}").json()["state"] == "running")
        waiting = [http.post(f"/models/{model['id']}/train", json=long).json()["id"] for _ in range(2)]
        refused = http.post(f"/models/{model['id']}/train", json=long)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["type"] == "/problems/temporary-reduced-capacity"
        assert (refused.json()["retryable"], refused.json()["reason"]) == (True, "queue-full")
        assert 'lora_shed_total{reason="queue-full"} 1.0' in http.get("/metrics").text
        assert len(http.get("/jobs").json()["items"]) == 3
        for job in [running, *waiting]:
            assert http.post(f"/jobs/{job}/cancel").json()["state"] == "cancelled"
        answer = http.post(f"/models/{model['id']}/train", headers={"Prefer": "wait=60"})
        assert answer.json()["state"] == "succeeded"


def test_training_does_not_keep_the_event_loop_from_answering(service: Service) -> None:
    http = service.http
    model = create(http)
    job = http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 1}).json()
    until(lambda: http.get(f"/jobs/{job['id']}").json()["state"] == "running")
    took = [http.get("/livez").elapsed.total_seconds() for _ in range(200)]
    assert http.get(f"/jobs/{job['id']}").json()["state"] == "running"
    assert statistics.median(took) < 0.1
    http.post(f"/jobs/{job['id']}/cancel")
