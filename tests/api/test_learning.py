"""What people expect of a training, over HTTP: validation, early stopping, schedules, weights of rows, accuracy."""

import csv
import io

import httpx
import pytest

from tests.api.test_train import create, trained

TEACHER = {"kind": "teacher", "teacher_rank": 2, "noise": 0.1, "seed": 1, "n_samples": 200}


def refused(http: httpx.Client, **plan: object) -> dict:
    answer = http.post(f"/models/{create(http)['id']}/train", json=plan)
    assert answer.status_code == 422, answer.text
    return answer.json()


def test_held_out_rows_have_a_loss_for_each_epoch_in_the_job_its_events_and_its_csv(http: httpx.Client) -> None:
    job = trained(http, create(http)["id"], epochs=7, data=TEACHER, validation=0.25, seed=2)
    assert job["plan"]["validation"] == 0.25
    assert len(job["validation_losses"]) == len(job["losses"]) == 7
    assert job["metrics"]["validation_loss"] == pytest.approx(job["validation_losses"][-1], rel=1e-6)
    listed = http.get(f"/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()["items"]
    epochs = [event["data"] for event in listed if event["event"] == "epoch"]
    assert [data["validation_loss"] for data in epochs] == job["validation_losses"]
    table = list(csv.DictReader(io.StringIO(http.get(f"/jobs/{job['id']}/losses.csv").text)))
    assert [float(line["validation_loss"]) for line in table] == job["validation_losses"]
    assert [float(line["loss"]) for line in table] == job["losses"]


def test_a_classifier_tells_its_accuracy_on_digits_it_has_not_seen(http: httpx.Client) -> None:
    plan = {"epochs": 20, "batch_size": 64, "loss": "cross_entropy", "data": {"kind": "digits"}, "seed": 1}
    job = trained(http, create(http, rank=8)["id"], validation={"kind": "digits", "split": "test"}, **plan)
    assert job["path"] == "batch"
    for name in ("accuracies", "validation_accuracies"):
        assert len(job[name]) == 20
        assert 0 <= job[name][0] < job[name][-1] <= 1
    assert job["validation_accuracies"][-1] > 0.9
    assert job["metrics"]["validation_accuracy"] == job["validation_accuracies"][-1]
    assert job["metrics"]["optimum_loss"] is None
    assert "mse" in job["metrics"]["optimum_unknown"]


def test_a_run_that_no_longer_gets_better_stops_and_publishes_its_best_epoch(http: httpx.Client) -> None:
    early = {"patience": 3, "min_delta": 0.0}
    plan = {"epochs": 2_000, "validation": 0.5, "early_stopping": early, "data": {"kind": "random", "n_samples": 60}}
    job = trained(http, create(http, rank=8)["id"], **plan)
    assert job["plan"]["early_stopping"] == early
    assert job["epoch"] == len(job["losses"]) < 2_000 == job["epochs"]
    best = job["metrics"]["best_epoch"]
    assert best == job["epoch"] - 3
    assert job["validation_losses"][best - 1] == min(job["validation_losses"])
    assert job["metrics"]["validation_loss"] == pytest.approx(min(job["validation_losses"]), rel=1e-6)


def test_every_setting_of_the_loop_is_in_the_plan(http: httpx.Client) -> None:
    asked = {"schedule": "cosine", "warmup_epochs": 2.0, "max_grad_norm": 0.5, "lr_b_ratio": 16.0, "epochs": 5}
    plan = trained(http, create(http)["id"], **asked)["plan"]
    assert {name: plan[name] for name in asked} == asked
    assert trained(http, create(http)["id"])["plan"]["schedule"] == "constant"


def test_a_full_batch_of_squared_errors_tells_how_near_the_optimum_it_came(http: httpx.Client) -> None:
    job = trained(http, create(http)["id"], epochs=3_000, lr=0.02, data={**TEACHER, "noise": 0.0, "teacher_rank": 1})
    metrics = job["metrics"]
    assert (job["path"], job["together"]) == ("moments", 1)
    assert metrics["gap_closed"] == pytest.approx(
        (job["losses"][0] - metrics["final_loss"]) / (job["losses"][0] - metrics["optimum_loss"])
    )
    assert metrics["gap_closed"] > 0.999


def test_a_teachers_change_is_seen_through_other_rows(http: httpx.Client) -> None:
    plan = {"epochs": 400, "lr": 0.05, "data": {**TEACHER, "noise": 0.0}, "validation": {"kind": "teacher"}}
    job = trained(http, create(http)["id"], **plan)
    held_out = job["plan"]["validation"]
    assert (held_out["seed"], held_out["teacher_rank"], held_out["held_out"]) == (1, 2, True)
    assert job["metrics"]["validation_loss"] < 1e-3 * job["validation_losses"][0]
    assert job["metrics"]["validation_loss"] != job["metrics"]["final_loss"]


def test_nothing_left_to_gain_is_all_gained(http: httpx.Client) -> None:
    model, data = create(http)["id"], {"kind": "random", "seed": 1}
    for plan in ({"optimizer": "closed_form"}, {"optimizer": "closed_form"}, {"epochs": 3}):
        assert trained(http, model, data=data, **plan)["metrics"]["gap_closed"] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_a_validation_loss_that_is_not_finite_is_a_divergence(http: httpx.Client, loss: str) -> None:
    held_out = {"kind": "inline", "x": [[3e38] * 64], "y": [[0.0] * 10]}
    plan = {"loss": loss, "validation": held_out, "early_stopping": {"patience": 2}}
    answer = http.post(f"/models/{create(http)['id']}/train", json=plan, headers={"Prefer": "wait=60"}).json()
    assert (answer["state"], answer["reason"], answer["epoch"]) == ("failed", "diverged", 0)


def test_rows_that_weigh_nothing_are_not_all_that_a_split_leaves(http: httpx.Client) -> None:
    data = {"kind": "inline", "x": [[0.5] * 64] * 5, "y": [[1.0] * 10] * 5, "weight": [0, 0, 0, 0, 1]}
    for seed in range(3):
        problem = refused(http, data=data, validation=0.2, seed=seed)
        assert "have no weight" in problem["detail"]
        assert problem["errors"][0]["pointer"] == "/validation"


@pytest.mark.parametrize(
    ("plan", "pointer", "says"),
    [
        ({"validation": 1.0}, "/validation", "validation is 1.0; it must be below 1"),
        ({"validation": "half"}, "/validation", "it must be a number"),
        ({"validation": {"kind": "digits"}}, "/validation", "compares outputs with numbers"),
        ({"validation": 0.5, "data": {"kind": "random", "n_samples": 1}}, "/validation", "at least 2"),
        ({"early_stopping": {}}, "/early_stopping/patience", "patience is required"),
        ({"warmup_epochs": 11}, "/warmup_epochs", "the run has 10 epochs"),
        ({"schedule": "polynomial"}, "/schedule", "'constant', 'linear' or 'cosine'"),
        ({"max_grad_norm": 0}, "/max_grad_norm", "above 0"),
        ({"optimizer": "closed_form", "lr": 0.1}, "/lr", "closed_form has no lr"),
        ({"optimizer": "closed_form", "weight_decay": 0.1}, "/weight_decay", "closed_form has no weight_decay"),
        ({"optimizer": "closed_form", "loss": "mae"}, "/optimizer", "closed_form solves mse"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(
    http: httpx.Client, plan: dict, pointer: str, says: str
) -> None:
    problem = refused(http, **plan)
    assert says in problem["detail"]
    assert problem["errors"][0]["pointer"] == pointer


def test_one_output_learns_numbers_in_rows_of_one_and_no_classes(http: httpx.Client) -> None:
    model = http.post("/models", json={"in_features": 2, "out_features": 1}).json()["id"]
    x = [[0, 1], [1, 0]]

    def asked(y: list, loss: str) -> dict:
        body = {"loss": loss, "epochs": 1, "data": {"kind": "inline", "x": x, "y": y}}
        return http.post(f"/models/{model}/train", json=body, headers={"Prefer": "wait=30"}).json()

    assert "numbers are written in rows: [[0.5], …]" in asked([0.5, 1.5], "mse")["detail"]
    for loss in ("cross_entropy", "mse"):
        assert "use bce_with_logits" in asked([0, 1], loss)["detail"]
    assert "bce_with_logits" in asked([[0], [1]], "cross_entropy")["detail"]
    assert asked([[0], [1]], "bce_with_logits")["state"] == "succeeded"


@pytest.mark.parametrize(("weight", "slug"), [([1, 2], "shape-mismatch"), ([-1], "validation"), ([0], "non-finite")])
def test_weights_that_weigh_nothing_or_less_are_refused(http: httpx.Client, weight: list, slug: str) -> None:
    data = {"kind": "inline", "x": [[0.5] * 64], "y": [[1.0] * 10], "weight": weight}
    assert refused(http, data=data)["type"] == f"/problems/{slug}"
