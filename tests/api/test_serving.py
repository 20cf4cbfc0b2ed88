"""Forwards under load: formats, models and versions at once; what is late is refused, and who has left forgotten."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from service.models.model import LoadedModel as Model
from tests.api.test_forward import FORMATS, Format
from tests.running import CLIENT_SECONDS, DEADLINE_SECONDS, Service, in_thread, until
from tests.serving.test_batcher import Gate, rows

RAW = {"Content-Type": "application/octet-stream"}
LARGE = {"in_features": 1_024, "out_features": 1_024}


@pytest.fixture
def hurried() -> Iterator[Service]:
    """A service whose forwards must begin within 0.2 s."""
    with in_thread(forward_wait_ms=200) as service:
        yield service


def held(service: Service) -> Gate:
    """Keep the thread of the large forwards busy until the gate is opened."""
    gate = Gate()
    service.engine.forwards.batcher.submit("gate", gate, rows(1))
    assert gate.entered.wait(DEADLINE_SECONDS)
    return gate


def formula(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """What a model is, computed in float64."""
    parts = (model.base.weight, model.adapter["A"], model.adapter["B"])
    weight, A, B = (tensor.double().cpu().numpy() for tensor in parts)
    bias = 0 if model.base.bias is None else model.base.bias.double().cpu().numpy()
    return lambda x: x @ weight.T + bias + model.spec.scaling * (x @ A.T) @ B.T


def test_every_answer_under_load_is_the_formula_of_the_version_it_names(service: Service) -> None:
    engine = service.engine
    small = [engine.create(in_features=64, out_features=10, rank=rank) for rank in (1, 4)]
    large = [engine.create(**LARGE, rank=8, seed=1)]
    large += [engine.create(base_id=large[0].base.id, rank=rank) for rank in (2, 4)]
    models = [*small, *large]
    published = {(model.id, 0): model for model in models}
    answers: list[tuple[str, int, np.ndarray, np.ndarray]] = []
    over = threading.Event()

    def ask(number: int) -> None:
        draw = np.random.default_rng(number)
        with httpx.Client(base_url=service.url, timeout=CLIENT_SECONDS) as http:
            while not over.is_set():
                model, sent, wanted = (choice[draw.integers(len(choice))] for choice in (models, FORMATS, FORMATS))
                x = draw.standard_normal((int(draw.integers(1, 20)), model.spec.in_features)).astype(np.float32)
                answers.append(asked(http, model, sent, wanted, x))

    with ThreadPoolExecutor(6) as threads:
        asking = [threads.submit(ask, number) for number in range(6)]
        try:
            for _ in range(3):
                for model in models:
                    plan = {"epochs": 3, "lr": 0.1, "data": {"kind": "random", "n_samples": 50}}
                    service.http.post(f"/models/{model.id}/train", json=plan, headers={"Prefer": "wait=60"})
                    now = engine.registry.get(model.id)
                    published[model.id, now.version] = now
            until(lambda: len(answers) > 300)
        finally:
            over.set()
    for each in asking:
        each.result()
    assert {version for _, version, _, _ in answers} == {0, 1, 2, 3}
    formulas = {key: formula(model) for key, model in published.items()}
    for model_id, version, x, y in answers:
        expected = formulas[model_id, version](x)
        assert np.abs(y - expected).max() <= 1e-6 * np.abs(expected).max()
    assert engine.forwards.batcher.requests > engine.forwards.batcher.batches > 0
    for model in models:
        engine.delete(model.id)


def asked(
    http: httpx.Client, model: Model, sent: Format, wanted: Format, x: np.ndarray
) -> tuple[str, int, np.ndarray, np.ndarray]:
    headers = {"Content-Type": sent.media_type, "Accept": wanted.media_type}
    answer = http.post(f"/models/{model.id}/forward", content=sent.write(x), headers=headers)
    assert answer.status_code == 200, answer.text
    y = wanted.read(answer.content).reshape(len(x), -1)
    return model.id, int(answer.headers["x-model-version"]), x, y


def test_a_row_is_answered_alike_whoever_shares_its_pass(service: Service) -> None:
    model = service.http.post("/models", json={**LARGE, "init": "normal", "rank": 8}).json()
    others = [service.http.post("/models", json={"base_id": model["base_id"]}).json() for _ in range(6)]
    x = np.random.default_rng(0).standard_normal((3, 1_024)).astype(np.float32)

    def forward(model_id: str, x: np.ndarray) -> np.ndarray:
        answer = httpx.post(f"{service.url}/models/{model_id}/forward", content=x.tobytes(), headers=RAW, timeout=60)
        return np.frombuffer(answer.content, np.float32).reshape(len(x), 1_024)

    alone = forward(model["id"], x)
    with ThreadPoolExecutor(7) as threads:
        gate = held(service)
        asking = [threads.submit(forward, each["id"], x * n) for n, each in enumerate([model, *others], start=1)]
        until(lambda: sum(len(line) for line in service.engine.forwards.batcher._waiting.values()) == 7)
        gate.open.set()
        shared = asking[0].result()
    assert np.abs(shared - alone).max() <= 1e-6 * np.abs(alone).max()
    for each in (model, *others):
        service.http.delete(f"/models/{each['id']}")


def test_what_cannot_begin_in_time_is_refused_while_all_else_is_answered(hurried: Service) -> None:
    large = hurried.http.post("/models", json=LARGE).json()
    small = hurried.http.post("/models", json={"in_features": 64, "out_features": 10}).json()
    gate = held(hurried)
    try:
        answer = hurried.http.post(f"/models/{large['id']}/forward", json={"inputs": [[0.5] * 1_024] * 2})
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/temporary-reduced-capacity")
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["retryable"] is True
        assert "within 0.2 s (LORA_FORWARD_WAIT_MS)" in answer.json()["detail"]
        for path in ("/livez", "/metrics", "/v2/health/live"):
            assert hurried.http.get(path).status_code == 200
        assert hurried.http.post(f"/models/{small['id']}/forward", json={"inputs": [0.5] * 64}).status_code == 200
        assert hurried.engine.budget.used < 2 * 4 * 1_024 * 1_024
    finally:
        gate.open.set()
    assert hurried.http.post(f"/models/{large['id']}/forward", json={"inputs": [0.5] * 1_024}).status_code == 200


def test_a_large_body_that_would_be_too_late_is_refused_before_it_comes(hurried: Service) -> None:
    large = hurried.http.post("/models", json=LARGE).json()
    batcher = hurried.engine.forwards.batcher
    host, port = hurried.url.removeprefix("http://").split(":")
    head = f"POST /models/{large['id']}/forward HTTP/1.1\r\nHost: localhost\r\nContent-Type: {RAW['Content-Type']}\r\n"
    gate = held(hurried)
    try:
        model = hurried.engine.registry.loaded(large["id"])
        batcher.submit(model.ground, model.maps, np.zeros((1, 1_024), np.float32))
        until(lambda: batcher.crowded(model.ground, 0.2))
        with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as client:
            client.sendall(head.encode() + b"Content-Length: 4194304\r\n\r\n")  # and nothing of it
            assert client.recv(4_096).startswith(b"HTTP/1.1 503 ")
        small = {**RAW, "Content-Length": "4096"}
        assert (
            hurried.http.post(f"/models/{large['id']}/forward", content=bytes(4_096), headers=small).status_code == 503
        )
    finally:
        gate.open.set()
    assert hurried.http.post(f"/models/{large['id']}/forward", json={"inputs": [0.5] * 1_024}).status_code == 200


def test_a_forward_whose_client_has_left_is_not_computed(service: Service) -> None:
    large = service.http.post("/models", json=LARGE).json()
    batcher = service.engine.forwards.batcher
    used = service.engine.budget.used
    gate = held(service)
    body = bytes(4 * 1_024)
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        f"POST /models/{large['id']}/forward HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
    )
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + b"Content-Length: 4096\r\n\r\n" + body)
        until(lambda: bool(batcher._waiting))
        (waiting,) = next(iter(batcher._waiting.values()))
    until(waiting.answer.cancelled)
    computed = batcher.requests
    gate.open.set()
    until(lambda: batcher.requests == computed + 1)  # the gate itself
    assert service.engine.budget.used == used
    service.http.delete(f"/models/{large['id']}")


def test_rows_for_which_there_is_no_memory_are_refused() -> None:
    with in_thread(memory_mib=5) as service:
        large = service.http.post("/models", json=LARGE).json()
        body = bytes(4 * 1_024 * 256)
        answer = service.http.post(f"/models/{large['id']}/forward", content=body, headers=RAW)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/temporary-reduced-capacity")
        few = service.http.post(f"/models/{large['id']}/forward", content=body[: 4 * 1_024], headers=RAW)
        assert few.status_code == 200
