"""A job may go on where another one ended: twice ten epochs are then twenty, bit for bit."""

import httpx
import pytest

from tests.api.test_train import create, tensors, trained

DATA = {"kind": "teacher", "teacher_rank": 2, "noise": 0.1, "seed": 1, "n_samples": 200}
PLANS = [
    {},
    {"optimizer": "adamw", "lr_b_ratio": 4.0, "max_grad_norm": 0.5},
    {"optimizer": "sgd", "momentum": 0.9, "batch_size": 32},
    {"loss": "huber", "batch_size": 64, "validation": 0.25},
]


def problem(http: httpx.Client, model_id: str, **plan: object) -> tuple[int, str]:
    answer = http.post(f"/models/{model_id}/train", json=plan)
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_twice_ten_epochs_are_twenty(http: httpx.Client, plan: dict, dropout: float) -> None:
    at_once, in_two = (create(http, seed=3, dropout=dropout)["id"] for _ in range(2))
    whole = trained(http, at_once, epochs=20, data=DATA, seed=7, **plan)
    first = trained(http, in_two, epochs=10, data=DATA, seed=7, **plan)
    second = trained(http, in_two, continue_from=first["id"])
    assert first["losses"] + second["losses"] == whole["losses"]
    assert second["metrics"] | {"gap_closed": None} == whole["metrics"] | {"gap_closed": None}
    ours, theirs = tensors(http, in_two), tensors(http, at_once)
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert second["plan"] == {**first["plan"], "continue_from": first["id"]}
    assert second["model_version"] == 2


def test_what_is_given_takes_the_place_of_the_earlier_setting(http: httpx.Client) -> None:
    model = create(http)["id"]
    first = trained(http, model, epochs=3, data=DATA)
    second = trained(http, model, continue_from=first["id"], epochs=2, lr=0.5)
    assert (second["plan"]["epochs"], second["plan"]["lr"], second["plan"]["data"]) == (2, 0.5, first["plan"]["data"])


def test_the_draws_go_on_so_another_seed_is_refused(http: httpx.Client) -> None:
    model = create(http)["id"]
    first = trained(http, model, epochs=3, data=DATA, seed=7, batch_size=16)
    assert problem(http, model, continue_from=first["id"], seed=8) == (422, "validation")
    assert trained(http, model, continue_from=first["id"], seed=7)["plan"]["seed"] == 7


def test_only_what_left_the_model_as_it_is_can_be_gone_on_from(http: httpx.Client) -> None:
    model, other = create(http)["id"], create(http)["id"]
    first = trained(http, model, epochs=2)
    second = trained(http, model, epochs=2)
    assert problem(http, model, continue_from=first["id"]) == (409, "state-gone")
    assert problem(http, other, continue_from=second["id"]) == (409, "state-gone")
    waiting = http.post(f"/models/{model}/train", json={"epochs": 10_000, "batch_size": 5}).json()
    assert problem(http, model, continue_from=second["id"]) == (409, "state-gone")
    http.post(f"/jobs/{waiting['id']}/cancel")
    assert trained(http, model, continue_from=second["id"])["model_version"] == 3


def test_a_job_that_does_not_exist_another_optimizer_and_rows_that_are_gone_are_refused(http: httpx.Client) -> None:
    model = create(http)["id"]
    assert problem(http, model, continue_from="job_01M85RD3BCCMDPHHSCEG79B55J") == (404, "job-not-found")
    assert problem(http, model, continue_from="yesterday") == (422, "validation")
    data = {"kind": "inline", "x": [[0.5] * 64], "y": [[1.0] * 10]}
    first = trained(http, model, data=data)
    assert problem(http, model, continue_from=first["id"]) == (422, "validation")
    assert problem(http, model, continue_from=first["id"], data=data, optimizer="sgd") == (422, "validation")
    assert trained(http, model, continue_from=first["id"], data=data)["state"] == "succeeded"
