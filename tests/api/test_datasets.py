"""Data sets over HTTP: uploaded in pieces, trained on as if they had come at once, listed and deleted."""

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from tests.api.test_train import create, trained
from tests.running import until

TYPE = {"Content-Type": "application/x-safetensors"}
UNKNOWN = "dat_01M85RD3BCCMDPHHSCEG79B55K"


def rows(n: int = 40, seed: int = 0, out: int = 10) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal((n, size)).astype(np.float32) for name, size in (("x", 64), ("y", out))}


def send(http: httpx.Client, path: str, tensors: dict[str, np.ndarray]) -> httpx.Response:
    return http.post(path, content=save(tensors), headers=TYPE)


def uploaded(http: httpx.Client, tensors: dict[str, np.ndarray], keep_rows: bool = True) -> dict:
    answer = send(http, f"/datasets?keep_rows={str(keep_rows).lower()}", tensors)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/datasets/{answer.json()['id']}"
    return answer.json()


def same_losses(http: httpx.Client, dataset: dict, inline: dict, **plan: object) -> dict:
    """Train on both; the losses must be the same."""
    stored = trained(http, create(http, seed=5)["id"], data={"kind": "dataset", "id": dataset["id"]}, seed=1, **plan)
    sent = trained(http, create(http, seed=5)["id"], data={"kind": "inline", **inline}, seed=1, **plan)
    assert stored["losses"] == pytest.approx(sent["losses"], rel=1e-9)
    assert stored["path"] == sent["path"]
    return stored


@pytest.mark.parametrize("keep_rows", [True, False])
def test_rows_that_came_in_pieces_train_as_those_that_came_at_once(http: httpx.Client, keep_rows: bool) -> None:
    pieces = [rows(n, seed) for seed, n in enumerate([40, 1, 25, 90])]
    dataset = uploaded(http, pieces[0], keep_rows)
    for piece in pieces[1:]:
        dataset = send(http, f"/datasets/{dataset['id']}/rows", piece).json()
    assert dataset == http.get(f"/datasets/{dataset['id']}").json()
    assert (dataset["n_samples"], dataset["keep_rows"], dataset["moments"]) == (156, keep_rows, True)
    assert (dataset["bytes"] > 156 * 74 * 4) is keep_rows
    whole = {name: np.concatenate([piece[name] for piece in pieces]).tolist() for name in "xy"}
    job = same_losses(http, dataset, whole, epochs=30)
    assert job["plan"]["data"]["n_samples"] == 156
    assert job["metrics"]["gap_closed"] > 0


def test_kept_rows_serve_minibatches_classes_weights_and_held_out_rows(http: httpx.Client) -> None:
    draw = np.random.default_rng(3)
    x, classes = rows(50)["x"], draw.integers(0, 10, 50)
    weight = draw.random(50).astype(np.float32)
    dataset = uploaded(http, {"x": x, "y": classes.astype(np.int32), "weight": weight})
    assert (dataset["targets"], dataset["out_features"], dataset["weighted"]) == ("classes", None, True)
    assert dataset["moments"] is False
    inline = {"x": x.tolist(), "y": classes.tolist(), "weight": weight.tolist()}
    plan = {"loss": "cross_entropy", "batch_size": 7, "epochs": 4, "validation": 0.2}
    job = same_losses(http, dataset, inline, **plan)
    assert len(job["validation_accuracies"]) == 4


def test_a_data_set_without_rows_serves_as_validation_too(http: httpx.Client) -> None:
    training, held_out = uploaded(http, rows(80), keep_rows=False), uploaded(http, rows(30, 9), keep_rows=False)
    plan = {"data": {"kind": "dataset", "id": training["id"]}, "validation": {"kind": "dataset", "id": held_out["id"]}}
    job = trained(http, create(http)["id"], epochs=5, **plan)
    assert job["path"] == "moments"
    assert len(job["validation_losses"]) == 5


def test_a_profile_of_a_data_set_is_that_of_its_rows(http: httpx.Client) -> None:
    model, tensors = create(http), rows(60)
    dataset = uploaded(http, tensors, keep_rows=False)
    profiles = [
        http.post(f"/models/{model['id']}/rank-profile", json={"data": data}).json()["ranks"]
        for data in (
            {"kind": "dataset", "id": dataset["id"]},
            {"kind": "inline", **{name: tensor.tolist() for name, tensor in tensors.items()}},
        )
    ]
    losses = [[reach["loss"] for reach in profile] for profile in profiles]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)


@pytest.mark.parametrize(
    ("plan", "pointer"),
    [
        ({"batch_size": 5}, "/batch_size"),
        ({"loss": "mae"}, "/loss"),
        ({"validation": 0.5}, "/validation"),
    ],
)
def test_what_needs_rows_is_refused_where_only_moments_are(http: httpx.Client, plan: dict, pointer: str) -> None:
    dataset = uploaded(http, rows(), keep_rows=False)
    data = {"kind": "dataset", "id": dataset["id"]}
    answer = http.post(f"/models/{create(http)['id']}/train", json={"data": data, **plan})
    assert answer.status_code == 422
    assert "keep_rows" in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == pointer


X = rows()["x"]
NAN = np.where(np.arange(X.size).reshape(X.shape) == 7, np.nan, X).astype(np.float32)


@pytest.mark.parametrize(
    ("tensors", "slug"),
    [
        ({"x": X}, "validation"),
        ({**rows(), "z": X}, "validation"),
        ({"x": X, "y": X[:3]}, "shape-mismatch"),
        ({"x": X, "y": X[:, 0]}, "shape-mismatch"),
        ({"x": X[:, 0], "y": X}, "shape-mismatch"),
        ({"x": X[:0], "y": X[:0]}, "shape-mismatch"),
        ({"x": NAN, "y": X}, "non-finite"),
        ({"x": X.astype(np.float64) * 1e300, "y": X}, "non-finite"),
        ({"x": X, "y": np.full(40, -1, np.int64)}, "validation"),
        ({"x": X, "y": np.full(40, 2**63 + 5, np.uint64)}, "validation"),
        ({"x": X, "y": np.full(40, 65_536, np.int64)}, "validation"),
        ({"x": X, "y": X[:, :0]}, "shape-mismatch"),
        ({**rows(), "weight": -np.ones(40, np.float32)}, "validation"),
        ({**rows(), "weight": np.zeros(40, np.float32)}, "non-finite"),
        ({"x": X.astype(np.int32), "y": X}, "bad-safetensors"),
    ],
)
def test_an_upload_that_makes_no_sense_leaves_nothing_behind(http: httpx.Client, tensors: dict, slug: str) -> None:
    before = http.get("/datasets").json()
    answer = send(http, "/datasets", tensors)
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{slug}"), answer.text
    assert http.get("/datasets").json() == before


@pytest.mark.parametrize(
    "more",
    [
        rows(out=9),
        {"x": X[:, :5], "y": rows()["y"]},
        {"x": X, "y": np.zeros(40, np.int64)},
        {**rows(), "weight": np.ones(40, np.float32)},
    ],
)
def test_rows_of_another_kind_are_not_appended(http: httpx.Client, more: dict) -> None:
    dataset = uploaded(http, rows())
    answer = send(http, f"/datasets/{dataset['id']}/rows", more)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/shape-mismatch")
    assert http.get(f"/datasets/{dataset['id']}").json() == dataset


def test_classes_have_no_moments_to_be_left_with(http: httpx.Client) -> None:
    answer = send(http, "/datasets?keep_rows=false", {"x": X, "y": np.zeros(40, np.int64)})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/validation")


def test_a_data_set_that_does_not_fit_the_model_is_refused(http: httpx.Client) -> None:
    data = {"kind": "dataset", "id": uploaded(http, rows(out=9))["id"]}
    answer = http.post(f"/models/{create(http)['id']}/train", json={"data": data})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/shape-mismatch")


@pytest.mark.parametrize("call", ["get", "delete", "append", "train", "profile"])
def test_a_data_set_that_does_not_exist_is_a_404(http: httpx.Client, call: str) -> None:
    data, model = {"kind": "dataset", "id": UNKNOWN}, create(http)["id"]
    answer = {
        "get": lambda: http.get(f"/datasets/{UNKNOWN}"),
        "delete": lambda: http.delete(f"/datasets/{UNKNOWN}"),
        "append": lambda: send(http, f"/datasets/{UNKNOWN}/rows", rows()),
        "train": lambda: http.post(f"/models/{model}/train", json={"data": data}),
        "profile": lambda: http.post(f"/models/{model}/rank-profile", json={"data": data}),
    }[call]()
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/dataset-not-found")


def test_other_types_than_safetensors_are_refused(http: httpx.Client) -> None:
    assert http.post("/datasets", json={}).status_code == 415
    assert http.post("/datasets", content=b"nonsense", headers=TYPE).json()["type"] == "/problems/bad-safetensors"


def test_data_sets_are_listed_in_pages_and_deleted(http: httpx.Client) -> None:
    made = [uploaded(http, rows(2))["id"] for _ in range(3)]
    listed, cursor = [], ""
    while True:
        found = http.get(f"/datasets?limit=2{cursor}").json()
        listed += [item["id"] for item in found["items"]]
        if found["next_cursor"] is None:
            break
        cursor = f"&cursor={found['next_cursor']}"
    assert listed[-3:] == made
    assert listed == sorted(listed)
    for dataset_id in made:
        assert http.delete(f"/datasets/{dataset_id}").status_code == 204
        assert http.get(f"/datasets/{dataset_id}").status_code == 404


def test_a_data_set_that_a_job_needs_is_not_deleted(http: httpx.Client) -> None:
    dataset = uploaded(http, rows(2_000))
    data = {"kind": "dataset", "id": dataset["id"]}
    plan = {"data": data, "epochs": 10_000, "batch_size": 10}
    job = http.post(f"/models/{create(http)['id']}/train", json=plan).json()
    refused = http.delete(f"/datasets/{dataset['id']}")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/dataset-busy")
    assert job["id"] in refused.json()["detail"]
    http.post(f"/jobs/{job['id']}/cancel")
    until(lambda: http.get(f"/jobs/{job['id']}").json()["state"] == "cancelled")
    assert http.delete(f"/datasets/{dataset['id']}").status_code == 204


def moments_of(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The moments of rows, summed up the plain way."""
    x, y = (tensors[name].astype(np.float64) for name in "xy")
    x_mean, y_mean = x.mean(0), y.mean(0)
    dx, dy = x - x_mean, y - y_mean
    counts = np.array([len(x), len(x), (dy**2).sum()], np.float64)
    return {"counts": counts, "x_mean": x_mean, "y_mean": y_mean, "xx": dx.T @ dx, "xy": dx.T @ dy}


def test_moments_train_as_the_rows_do_that_they_are_of(http: httpx.Client) -> None:
    pieces = [rows(n, seed) for seed, n in enumerate([40, 90])]
    dataset = uploaded(http, moments_of(pieces[0]))
    dataset = send(http, f"/datasets/{dataset['id']}/rows", moments_of(pieces[1])).json()
    assert (dataset["n_samples"], dataset["keep_rows"], dataset["targets"]) == (130, False, "numbers")
    dataset = send(http, f"/datasets/{dataset['id']}/rows", rows(20, 5)).json()  # rows, beside them
    assert dataset["n_samples"] == 150
    parts = [*pieces, rows(20, 5)]
    whole = {name: np.concatenate([part[name] for part in parts]).tolist() for name in "xy"}
    same_losses(http, dataset, whole, epochs=30)


def test_a_billion_rows_cost_what_one_does(http: httpx.Client) -> None:
    sent = moments_of(rows(80))
    many = {name: array * 1e9 / 80 if name in ("counts", "xx", "xy") else array for name, array in sent.items()}
    dataset = uploaded(http, many)
    assert (dataset["n_samples"], dataset["bytes"]) == (10**9, uploaded(http, sent)["bytes"])
    plain = {name: array.tolist() for name, array in rows(80).items()}
    job = same_losses(http, dataset, plain, epochs=30)
    assert job["path"] == "moments"


@pytest.mark.parametrize(
    ("change", "slug", "pointer", "words"),
    [
        ({"xx": None}, "validation", "", "the moments are counts, x_mean, xy, y_mean; they must be counts, x_mean"),
        ({"x": np.ones(3)}, "validation", "", "they must be counts"),
        ({"counts": np.ones(4)}, "shape-mismatch", "/counts", "counts has shape [4]; beside x_mean and y_mean it must"),
        ({"x_mean": np.ones((8, 8))}, "shape-mismatch", "/x_mean", "x_mean has shape [8, 8]"),
        ({"xy": np.ones((64, 9))}, "shape-mismatch", "/xy", "it must be [64, 10]"),
        ({"y_mean": np.ones(0)}, "shape-mismatch", "/y_mean", "y_mean has shape [0]"),
        ({"y_mean": np.full(10, np.nan)}, "non-finite", "/y_mean", "y_mean holds numbers that are not finite"),
        ({"counts": np.array([0.0, 1, 1])}, "validation", "/counts/0", "the rows are 0; their number is 1 to"),
        ({"counts": np.array([1.5, 1, 1])}, "validation", "/counts/0", "the rows are 1.5"),
        ({"counts": np.array([1e17, 1, 1])}, "validation", "/counts/0", "the rows are 1e+17"),
        ({"counts": np.array([9.0, 0, 1])}, "validation", "/counts/1", "the weights add up to 0; it must be above 0"),
        ({"counts": np.array([9.0, 9, -1])}, "validation", "/counts/2", "add up to -1"),
        ({"xx": -np.eye(64)}, "validation", "/xx", "xx is no sum of w (x - x_mean)(x - x_mean)ᵀ, which is symmetric"),
        ({"xx": np.eye(64) + np.eye(64, k=1) / 2}, "validation", "/xx", "xx is no sum"),
        ({"xx": np.ones((64, 64)) * 2 - np.eye(64)}, "validation", "/xx", "than those of the diagonal allow"),
    ],
)
def test_moments_that_can_be_of_no_rows_are_refused(http, change, slug, pointer, words):
    sent = {name: array for name, array in {**moments_of(rows(80)), **change}.items() if array is not None}
    answer = send(http, "/datasets", sent)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, f"/problems/{slug}")
    assert words in problem["detail"]
    assert problem["errors"][0]["pointer"] == pointer


def test_moments_are_not_put_among_rows_that_are_kept(http: httpx.Client) -> None:
    dataset = uploaded(http, rows(40))
    answer = send(http, f"/datasets/{dataset['id']}/rows", moments_of(rows(40)))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/counts")
    other = uploaded(http, moments_of(rows(40, out=3)))
    answer = send(http, f"/datasets/{other['id']}/rows", moments_of(rows(40)))
    assert "in the data set it is [n, 3]" in answer.json()["detail"]


def test_what_needs_rows_says_that_there_are_none(http: httpx.Client) -> None:
    dataset = uploaded(http, moments_of(rows(40)))
    data = {"kind": "dataset", "id": dataset["id"]}
    answer = http.post(f"/models/{create(http)['id']}/train", json={"data": data, "batch_size": 8})
    assert answer.status_code == 422
    assert "rows" in answer.json()["detail"]
