"""A sweep makes its models, trains them on the same rows, ranks them by what they were not shown, and clears up."""

import httpx
import pytest

from tests.api.test_train import SIZES, create, trained
from tests.running import until

TEACHER = {"kind": "teacher", "teacher_rank": 3, "noise": 0.3, "seed": 1, "n_samples": 300}


def start(http: httpx.Client, **body: object) -> dict:
    answer = http.post("/sweeps", json={"model": SIZES, **body})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/sweeps/{answer.json()['id']}"
    return answer.json()


def ended(http: httpx.Client, sweep: dict) -> dict:
    until(lambda: http.get(f"/sweeps/{sweep['id']}").json()["state"] == "ended")
    return http.get(f"/sweeps/{sweep['id']}").json()


def test_every_combination_is_a_model_that_is_trained_on_the_same_rows(http: httpx.Client) -> None:
    over = {"rank": [1, 3], "lr": {"low": 0.001, "high": 0.1, "count": 3}, "seed": [5, 6]}
    sweep = ended(http, start(http, train={"epochs": 60, "data": TEACHER}, over=over))
    board = sweep["leaderboard"]
    assert sweep["counts"] == {"succeeded": 12}
    assert [standing["place"] for standing in board] == list(range(1, 13))
    losses = [standing["validation_loss"] for standing in board]
    assert losses == sorted(losses)
    tried = {(each["settings"]["rank"], round(each["settings"]["lr"], 6), each["settings"]["seed"]) for each in board}
    assert tried == {(rank, lr, seed) for rank in (1, 3) for lr in (0.001, 0.01, 0.1) for seed in (5, 6)}
    assert {each["trainable"] for each in board} == {74, 222}
    assert board[0]["settings"]["rank"] == 3
    models = [http.get(f"/models/{each['model_id']}").json() for each in board]
    assert len({model["base_id"] for model in models}) == 1
    jobs = [http.get(f"/jobs/{each['job_id']}").json() for each in board]
    assert len({job["plan"]["seed"] for job in jobs}) == 1
    assert {job["plan"]["validation"] for job in jobs} == {0.2}
    for each, model, job in zip(board, models, jobs, strict=True):
        assert (model["rank"], model["seed"]) == (each["settings"]["rank"], each["settings"]["seed"])
        assert job["plan"]["lr"] == each["settings"]["lr"]
        assert job["metrics"]["validation_loss"] == each["validation_loss"]
        assert job["metrics"]["final_loss"] == each["final_loss"]
    assert max(job["together"] for job in jobs) > 1


def test_a_member_has_the_numbers_of_the_same_training_by_hand(http: httpx.Client) -> None:
    train = {"epochs": 9, "data": TEACHER, "validation": {**TEACHER, "n_samples": 50}, "seed": 4}
    sweep = ended(http, start(http, model={**SIZES, "seed": 3}, train=train, over={"lr": [0.02], "optimizer": ["sgd"]}))
    (member,) = sweep["leaderboard"]
    alone = trained(http, create(http, seed=3)["id"], lr=0.02, optimizer="sgd", **train)
    job = http.get(f"/jobs/{member['job_id']}").json()
    assert job["losses"] == alone["losses"]
    assert job["validation_losses"] == alone["validation_losses"]


def test_rows_of_the_request_and_a_base_that_is_there_are_shared_by_all(http: httpx.Client) -> None:
    model = create(http, seed=1)
    data = {"kind": "inline", "x": [[0.1 * n] * 64 for n in range(10)], "y": [[1.0 * n] * 10 for n in range(10)]}
    before = http.get(f"/models/{model['id']}").json()
    sweep = start(http, model={"base_id": model["base_id"]}, train={"data": data}, over={"alpha": [1.0, 2.0, 4.0]})
    board = ended(http, sweep)["leaderboard"]
    assert [each["state"] for each in board] == ["succeeded"] * 3
    assert {http.get(f"/models/{each['model_id']}").json()["base_id"] for each in board} == {model["base_id"]}
    assert http.get(f"/models/{model['id']}").json() == before


def test_deleting_a_sweep_keeps_the_best(http: httpx.Client) -> None:
    sweep = ended(http, start(http, train={"epochs": 5, "data": TEACHER}, over={"rank": [1, 2, 3, 4]}))
    ids = [each["model_id"] for each in sweep["leaderboard"]]
    assert http.delete(f"/sweeps/{sweep['id']}?keep=2").status_code == 204
    assert [http.get(f"/models/{model_id}").status_code for model_id in ids] == [200, 200, 404, 404]
    assert http.get(f"/sweeps/{sweep['id']}").json()["type"] == "/problems/sweep-not-found"


LONG = {"epochs": 10_000, "batch_size": 5, "data": {**TEACHER, "n_samples": 2_000}}


@pytest.mark.parametrize("keep", [0, 1])
def test_a_sweep_that_runs_is_deleted_by_force_alone(http: httpx.Client, keep: int) -> None:
    sweep = start(http, train=LONG, over={"rank": [1, 2]})
    refused = http.delete(f"/sweeps/{sweep['id']}?keep={keep}")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/sweep-busy")
    assert "POST /sweeps/{id}/cancel, which keeps all models" in refused.json()["detail"]
    assert f"deletes all models but the best, of which ?keep={keep} stay" in refused.json()["detail"]
    assert http.delete(f"/sweeps/{sweep['id']}?force=true&keep={keep}").status_code == 204
    assert sum(http.get(f"/models/{each['model_id']}").is_success for each in sweep["leaderboard"]) == keep
    for each in sweep["leaderboard"]:  # whether or not its model stays
        assert http.get(f"/jobs/{each['job_id']}").json()["state"] == "cancelled"


def test_a_cancel_ends_all_that_has_not_ended_and_keeps_all_models(http: httpx.Client) -> None:
    sweep = start(http, train=LONG, over={"rank": [1, 2, 3]})
    first = sweep["leaderboard"][0]
    until(lambda: http.get(f"/jobs/{first['job_id']}").json()["epoch"])
    waiting = http.post(f"/models/{first['model_id']}/train", json={"epochs": 1}).json()  # a job of somebody else's
    cancelled = http.post(f"/sweeps/{sweep['id']}/cancel")
    assert cancelled.status_code == 200, cancelled.text
    assert (cancelled.json()["state"], cancelled.json()["counts"]) == ("ended", {"cancelled": 3})
    for each in sweep["leaderboard"]:
        assert http.get(f"/jobs/{each['job_id']}").json()["state"] == "cancelled"
        assert http.get(f"/models/{each['model_id']}").is_success
    until(lambda: http.get(f"/jobs/{waiting['id']}").json()["state"] == "succeeded")
    assert http.post(f"/sweeps/{sweep['id']}/cancel").json()["counts"] == {"cancelled": 3}
    assert http.get(f"/sweeps/{sweep['id']}").json()["counts"] == {"cancelled": 3}


def test_a_cancel_leaves_what_has_ended_as_it_is(http: httpx.Client) -> None:
    sweep = ended(http, start(http, train={"epochs": 2, "data": TEACHER}, over={"rank": [1, 2]}))
    assert http.post(f"/sweeps/{sweep['id']}/cancel").json() == sweep


def test_a_cancel_under_a_key_is_one_cancel_and_another_body_is_422(http: httpx.Client) -> None:
    sweep = start(http, train=LONG, over={"rank": [1, 2]})
    at, key = f"/sweeps/{sweep['id']}/cancel", {"Idempotency-Key": "cancel the sweep"}
    first, again = (http.post(at, headers=key) for _ in range(2))
    assert (first.status_code, first.json()["counts"]) == (200, {"cancelled": 2})
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    other = http.post(at, headers=key, content=b"{}")
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-mismatch")


def test_each_optimizer_is_tried_with_the_settings_that_it_has(http: httpx.Client) -> None:
    over = {"optimizer": ["adam", "sgd", "closed_form"], "lr": [0.01, 0.1]}
    sweep = ended(http, start(http, train={"epochs": 7, "data": TEACHER, "momentum": 0.5}, over=over))
    tried = {tuple(sorted(each["settings"].items())) for each in sweep["leaderboard"]}
    assert tried == {
        *((("lr", lr), ("optimizer", name)) for name in ("adam", "sgd") for lr in (0.01, 0.1)),
        (("optimizer", "closed_form"),),
    }
    assert sweep["counts"] == {"succeeded": 5}
    assert sweep["leaderboard"][0]["settings"] == {"optimizer": "closed_form"}
    epochs = {each["settings"]["optimizer"]: each["epoch"] for each in sweep["leaderboard"]}
    assert epochs == {"adam": 7, "sgd": 7, "closed_form": 1}


def test_the_best_model_that_is_still_there_is_kept(http: httpx.Client) -> None:
    sweep = ended(http, start(http, train={"epochs": 5, "data": TEACHER}, over={"rank": [1, 2, 3]}))
    ids = [each["model_id"] for each in sweep["leaderboard"]]
    http.delete(f"/models/{ids[0]}")
    assert http.delete(f"/sweeps/{sweep['id']}").status_code == 204
    assert [http.get(f"/models/{model_id}").status_code for model_id in ids] == [404, 200, 404]


def test_members_that_fail_come_last(http: httpx.Client) -> None:
    train = {"epochs": 200, "data": TEACHER, "optimizer": "sgd"}
    sweep = ended(http, start(http, model={**SIZES, "init": "normal"}, train=train, over={"lr": [1e6, 0.001, 1e5]}))
    assert [each["state"] for each in sweep["leaderboard"]] == ["succeeded", "failed", "failed"]
    assert sweep["counts"] == {"succeeded": 1, "failed": 2}


def test_sweeps_are_listed(http: httpx.Client) -> None:
    made = [ended(http, start(http, train={"epochs": 1}, over={"rank": [1]})) for _ in range(2)]
    page = http.get("/sweeps?limit=200").json()
    assert page["items"][-2:] == made


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({"over": {}}, "/over", "at least one list"),
        ({"over": {"rank": []}}, "/over/rank", "at least 1"),
        ({"over": {"rank": [1] * 17, "lr": [0.1] * 17}}, "/over", "289 combinations"),
        ({"over": {"lr": {"low": 0.1, "high": 1.0, "count": 1}}}, "/over/lr/count", "at least 2"),
        ({"over": {"lr": [0.0]}}, "/over/lr/0", "above 0"),
        ({"over": {"ranks": [1]}}, "/over/ranks", "did you mean rank?"),
        ({"over": {"rank": [1]}, "train": {"epoch": 1}}, "/train/epoch", "did you mean epochs?"),
        ({"over": {"rank": [1, 11]}}, "/over/rank", "at most min"),
        ({"over": {"rank": [1]}, "model": {"rank": 1}}, "/model/in_features", "must be given"),
        (
            {"over": {"lr": [0.1]}, "model": {"in_features": 6, "out_features": 2, "rank": 3}},
            "/model/rank",
            "at most min",
        ),
        ({"over": {"rank": [1]}, "train": {"momentum": 0.5}}, "/train/momentum", "adam has no momentum"),
        (
            {
                "over": {"rank": [1]},
                "model": {**SIZES, "use_dora": True},
                "train": {"optimizer": "closed_form"},
            },
            "/train/optimizer",
            "use_dora",
        ),
        ({"over": {"lr": {"low": 0.2, "high": 0.1, "count": 3}}}, "/over/lr/low", "below high"),
        ({"over": {"lr": {"lo": 0.2}}}, "/over/lr/low", "low is required"),
        ({"over": {"rank": [1]}, "train": {"data": {"kind": "digits"}}}, "/train/loss", "compares outputs"),
    ],
)
def test_a_sweep_that_makes_no_sense_leaves_nothing_behind(
    http: httpx.Client, body: dict, pointer: str, says: str
) -> None:
    before = [http.get(path).json() for path in ("/models?limit=200", "/sweeps?limit=200")]
    answer = http.post("/sweeps", json={"model": SIZES, **body})
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert [http.get(path).json() for path in ("/models?limit=200", "/sweeps?limit=200")] == before


def test_a_sweep_that_does_not_exist_is_a_404(http: httpx.Client) -> None:
    path = "/sweeps/swp_01M85RD3BCCMDPHHSCEG79B55M"
    assert [call(path).status_code for call in (http.get, http.delete)] == [404, 404]
    assert http.post(f"{path}/cancel").json()["type"] == "/problems/sweep-not-found"
