"""The rank profile says over HTTP what training to each rank would find out."""

import httpx
import pytest

from tests.api.test_train import create, trained


def profile(http: httpx.Client, model_id: str, **body: object) -> list[dict]:
    answer = http.post(f"/models/{model_id}/rank-profile", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_id"] == model_id
    return answer.json()["ranks"]


def test_every_rank_has_the_loss_that_its_closed_form_reaches(http: httpx.Client) -> None:
    data = {"kind": "teacher", "teacher_rank": 3, "noise": 0.1, "seed": 5, "n_samples": 300}
    model = create(http, in_features=12, out_features=7, rank=2, seed=1)
    ranks = profile(http, model["id"], data=data)
    assert [reach["rank"] for reach in ranks] == list(range(8))
    assert [reach["trainable"] for reach in ranks] == [19 * rank for rank in range(8)]
    losses = [reach["loss"] for reach in ranks]
    assert losses == sorted(losses, reverse=True)
    assert losses[2] > 2 * losses[3] > losses[7] > 0.8 * losses[3]  # three ranks to learn, and noise
    job = trained(http, model["id"], optimizer="closed_form", data=data)
    assert job["losses"] == [pytest.approx(losses[0])]
    assert job["metrics"]["final_loss"] == pytest.approx(losses[2], rel=1e-5)
    assert job["metrics"]["optimum_loss"] == pytest.approx(losses[2], rel=1e-9)
    assert job["metrics"]["gap_closed"] == pytest.approx(1, abs=1e-6)


def test_rows_of_the_request_are_profiled_with_their_weights(http: httpx.Client) -> None:
    model = create(http, in_features=2, out_features=2, rank=1, bias=False, seed=3)
    x, y = [[1, 0], [0, 1], [1, 1]], [[1, 2], [3, 4], [0, 0]]
    weighted = profile(http, model["id"], data={"kind": "inline", "x": x, "y": y, "weight": [1, 1, 0]})
    fewer = profile(http, model["id"], data={"kind": "inline", "x": x[:2], "y": y[:2]})
    assert [reach["loss"] for reach in weighted] == pytest.approx([reach["loss"] for reach in fewer], abs=1e-12)


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        ({"data": {"kind": "digits"}}, "validation"),
        ({"data": {"kind": "inline", "x": [[1.0]], "y": [[1.0]]}}, "shape-mismatch"),
        ({"rank": 3}, "validation"),
    ],
)
def test_data_that_has_no_profile_is_refused(http: httpx.Client, body: dict, slug: str) -> None:
    answer = http.post(f"/models/{create(http)['id']}/rank-profile", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{slug}")


def test_drawn_rows_are_those_of_a_seed_that_is_told(http: httpx.Client) -> None:
    model = create(http, seed=1)["id"]
    for data in ({}, {"data": {"kind": "teacher"}}):
        first = http.post(f"/models/{model}/rank-profile", json=data).json()
        again = http.post(f"/models/{model}/rank-profile", json={"data": first["data"]}).json()
        assert again == first


def test_a_model_that_does_not_exist_has_no_profile(http: httpx.Client) -> None:
    answer = http.post("/models/mdl_01M85RD3BCCMDPHHSCEG79B55H/rank-profile", json={})
    assert answer.status_code == 404
