"""Forward over HTTP: the formula in every format, from exactly one version."""

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save

from tests.running import DEADLINE_SECONDS, Service, until


def npy(x: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, x)
    return stream.getvalue()


@dataclass(frozen=True)
class Format:
    """A media type, written and read by the libraries a user has."""

    media_type: str
    write: Callable[[NDArray[np.float32]], bytes]
    read: Callable[[bytes], NDArray[np.float32]]


def read_json(body: bytes) -> NDArray[np.float32]:
    answer = httpx.Response(200, content=body).json()
    return np.array(answer["outputs"], dtype=np.float32).reshape(answer["shape"])


FORMATS = [
    Format(
        "application/json",
        lambda x: httpx.Request("POST", "http://x", json={"inputs": x.tolist()}).content,
        read_json,
    ),
    Format("application/x-npy", npy, lambda body: np.load(io.BytesIO(body))),
    Format("application/x-safetensors", lambda x: save({"inputs": x}), lambda body: load(body)["outputs"]),
    Format("application/octet-stream", lambda x: x.tobytes(), lambda body: np.frombuffer(body, dtype="<f4")),
]
formats = pytest.mark.parametrize("sent", FORMATS, ids=lambda sent: sent.media_type)


@pytest.fixture(scope="module")
def model(service: Service) -> dict:
    """A model whose adapter does something, with a scaling that is not 1."""
    fields = {"in_features": 64, "out_features": 10, "init": "normal", "alpha": 2.5, "train_bias": True, "seed": 6}
    created = service.http.post("/models", json=fields).json()
    service.http.post(f"/models/{created['id']}/train", headers={"Prefer": "wait=60"})
    return service.http.get(f"/models/{created['id']}").json()


def formula(http: httpx.Client, model: dict, x: NDArray[np.float32]) -> NDArray[np.float64]:
    w = {name: t.astype(np.float64) for name, t in load(http.get(f"/models/{model['id']}/weights").content).items()}
    bias = w.get("bias", w["base.bias"])
    return x @ w["base.weight"].T + bias + model["scaling"] * (x @ w["lora_A.weight"].T) @ w["lora_B.weight"].T


def assert_close(y: NDArray[np.float32], expected: NDArray[np.float64]) -> None:
    assert np.abs(y - expected).max(initial=0) <= 1e-6 * np.abs(expected).max(initial=1)


@formats
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(0, 3), min_size=0, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_outputs_equal_the_formula_for_any_leading_dimensions(
    service: Service, model: dict, sent: Format, shape: list[int], seed: int
) -> None:
    x = np.random.default_rng(seed).standard_normal([*shape, 64]).astype(np.float32)
    headers = {"Content-Type": sent.media_type}
    answer = service.http.post(f"/models/{model['id']}/forward", content=sent.write(x), headers=headers)
    if answer.status_code == 422:
        # JSON writes an empty dimension before others as brackets that tell no sizes.
        assert sent.media_type == "application/json"
        assert 0 in shape[1:]
        return
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == sent.media_type
    assert answer.headers["x-model-version"] == "1"
    expected = formula(service.http, model, x)
    assert_close(sent.read(answer.content).reshape(expected.shape), expected)


@formats
@pytest.mark.parametrize("wanted", FORMATS, ids=lambda wanted: wanted.media_type)
def test_accept_chooses_the_type_of_the_answer(http: httpx.Client, model: dict, sent: Format, wanted: Format) -> None:
    x = np.ones((3, 64), dtype=np.float32)
    headers = {"Content-Type": sent.media_type, "Accept": f"{wanted.media_type}, */*;q=0.1"}
    answer = http.post(f"/models/{model['id']}/forward", content=sent.write(x), headers=headers)
    assert answer.headers["content-type"] == wanted.media_type
    assert_close(wanted.read(answer.content).reshape(3, 10), formula(http, model, x))


def test_json_names_shape_model_and_version(http: httpx.Client, model: dict) -> None:
    answer = http.post(f"/models/{model['id']}/forward", json={"inputs": [[0] * 64, [1] * 64]}).json()
    assert {name: answer[name] for name in answer if name != "outputs"} == {
        "shape": [2, 10],
        "model_id": model["id"],
        "model_version": 1,
    }


def test_one_row_without_a_batch_comes_back_without_one(http: httpx.Client, model: dict) -> None:
    answer = http.post(f"/models/{model['id']}/forward", json={"inputs": [0.5] * 64}).json()
    assert answer["shape"] == [10]
    assert len(answer["outputs"]) == 10


def test_no_rows_at_all_are_a_legal_batch(http: httpx.Client, model: dict) -> None:
    answer = http.post(f"/models/{model['id']}/forward", json={"inputs": []}).json()
    assert (answer["outputs"], answer["shape"]) == ([], [0, 10])


def test_json_numbers_read_back_as_the_very_float32_they_were(http: httpx.Client, model: dict) -> None:
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    json, raw = FORMATS[0], FORMATS[3]
    answers = [
        http.post(f"/models/{model['id']}/forward", content=f.write(x), headers={"Content-Type": f.media_type})
        for f in (json, raw)
    ]
    assert json.read(answers[0].content).tobytes() == answers[1].content


def test_what_overflows_is_a_word_and_never_null(http: httpx.Client, model: dict) -> None:
    outputs = http.post(f"/models/{model['id']}/forward", json={"inputs": [3e38] * 64}).json()["outputs"]
    assert set(outputs) <= {"NaN", "Infinity", "-Infinity"}


def test_outputs_beyond_the_limit_are_refused_before_they_are_made(http: httpx.Client) -> None:
    wide = http.post("/models", json={"in_features": 1, "out_features": 65_536, "rank": 1}).json()
    body = np.zeros((4_096, 1), dtype=np.float32).tobytes()
    path, headers = f"/models/{wide['id']}/forward", {"Content-Type": "application/octet-stream"}
    answer = http.post(path, content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/limit-exceeded"
    assert answer.json()["bytes_needed"] == 4 * 4_096 * 65_536
    as_json = http.post(path, content=body[: 4 * 32], headers={**headers, "Accept": "application/json"})
    assert as_json.status_code == 422
    assert "JSON carries at most" in as_json.json()["detail"]
    assert len(http.post(path, content=body[: 4 * 32], headers=headers).content) == 4 * 32 * 65_536
    http.delete(f"/models/{wide['id']}")


def test_while_a_model_trains_every_answer_is_that_of_the_version_it_names(service: Service) -> None:
    http = service.http
    model = http.post("/models", json={"in_features": 16, "out_features": 4, "init": "normal", "seed": 1}).json()
    x = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
    path, headers = f"/models/{model['id']}/forward", {"Content-Type": "application/octet-stream"}
    expected = {0: formula(http, model, x)}
    answers: list[tuple[int, NDArray[np.float32]]] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service.url, timeout=DEADLINE_SECONDS) as mine:
            while not over.is_set():
                answer = mine.post(path, content=x.tobytes(), headers=headers)
                answers.append((int(answer.headers["x-model-version"]), np.frombuffer(answer.content, dtype="<f4")))

    def hear() -> None:
        enough = len(answers) + 5  # more than are under way
        until(lambda: len(answers) >= enough)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        hear()
        for version in range(1, 6):
            job = http.post(f"/models/{model['id']}/train", json={"epochs": 300, "lr": 0.05}).json()
            until(lambda job=job: http.get(f"/jobs/{job['id']}").json()["state"] == "succeeded")
            expected[version] = formula(http, model, x)
            hear()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {version for version, _ in answers} == set(range(6))
    for version, y in answers:
        assert_close(y.reshape(5, 4), expected[version])


def test_accept_may_come_in_several_headers(http: httpx.Client) -> None:
    model = http.post("/models", json={"in_features": 2, "out_features": 2, "rank": 1}).json()
    for accepts in (["application/json", "image/png"], ["image/png", "application/json"]):
        headers = [("Accept", accept) for accept in accepts]
        headers.append(("Content-Type", "application/json"))
        answer = http.post(f"/models/{model['id']}/forward", headers=headers, content=b'{"inputs": []}')
        assert answer.headers["content-type"] == "application/json"


def test_an_empty_tensor_may_not_be_more_lists_than_json_has(http: httpx.Client) -> None:
    model = http.post("/models", json={"in_features": 6, "out_features": 2, "rank": 1}).json()
    headers = {"Content-Type": "application/x-npy", "Accept": "application/json"}
    for shape, status in (((65_535, 0, 6), 200), ((65_536, 0, 6), 422), ((20_000, 1, 1, 1, 0, 6), 422), ((0, 6), 200)):
        answer = http.post(f"/models/{model['id']}/forward", content=npy(np.zeros(shape, np.float32)), headers=headers)
        assert answer.status_code == status, shape


def test_no_rows_are_no_reason_to_merge_a_large_layer(service: Service) -> None:
    model = service.engine.create(in_features=1_024, out_features=1_024)
    for _ in range(3):
        answer = service.http.post(f"/models/{model.id}/forward", json={"inputs": []})
        assert answer.json()["shape"] == [0, 1_024]
    assert service.engine.forwards.merged.of(model.id, model.maps) is model.maps
