"""The service that the sheet is tried on: it asks for a key, is small, and holds one of everything."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from safetensors.numpy import save

from service.api.keys import Keys
from service.settings import load
from tests.running import Service, in_thread
from tests.trust.asking import AUTHORIZED, JSON, KEY, Names

BODY_MIB = 4
MAX_MODELS = 4
SETTINGS = {"api_keys": KEY, "json_body_mib": BODY_MIB, "memory_mib": 64, "max_models": MAX_MODELS}
SMALL = {"in_features": 3, "out_features": 2, "rank": 1, "seed": 1}
FILE = {"Content-Type": "application/x-safetensors"}
ROWS = np.ones((4, 3), np.float32)


@contextmanager
def ground() -> Iterator[tuple[Service, Names]]:
    """The service, and what the names in requests stand for."""
    with in_thread(**SETTINGS) as service:
        service.wait_for_workers()
        service.http.headers.update(AUTHORIZED)
        yield service, held(service)


def held(service: Service) -> Names:
    """Make a model, a version of it, two jobs, a base and a data set; a model that is gone; and use a key twice."""
    http, known = service.http, {"Idempotency-Key": "known"}
    first = http.post("/models", content=json.dumps(SMALL), headers=JSON | known)
    model, gone = (http.post("/models", json=SMALL).json()["id"] for _ in range(2))
    http.delete(f"/models/{gone}").raise_for_status()
    base = http.post("/bases", content=save({"weight": ROWS[:2]}), headers=FILE).json()["id"]
    http.post("/datasets", content=save({"x": ROWS, "y": ROWS[:, :2].copy()}), headers=FILE).raise_for_status()
    stale = http.get(f"/models/{model}").headers["etag"]
    path, body, headers = f"/models/{model}/train", json.dumps({"epochs": 1}), JSON | {"Prefer": "wait=60"}
    job, _ = (http.post(path, content=body, headers=headers | more).json() for more in (known, {}))
    assert job["state"] == "succeeded"
    last = http.get(f"/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()["items"][-1]["id"]
    cursor = http.get("/jobs?limit=1").json()["next_cursor"]
    ids = {"model": model, "gone": gone, "base": base, "job": job["id"]}
    return {**ids, "answer": first.text, "stale": stale, "last": str(last), "cursor": cursor}


@contextmanager
def full(service: Service) -> Iterator[None]:
    """As many models as there may be."""
    there = len(service.http.get("/models").json()["items"])
    made = [service.http.post("/models", json=SMALL).json()["id"] for _ in range(MAX_MODELS - there)]
    yield
    for model in made:
        service.http.delete(f"/models/{model}").raise_for_status()


@contextmanager
def busy(service: Service) -> Iterator[None]:
    """The first request with the key `busy` under way."""
    caller = Keys(load(api_keys=KEY)).caller(AUTHORIZED["Authorization"].encode())
    key = f"{caller.name} POST /models\nbusy"
    service.engine.replies.begin(key, "")
    yield
    service.engine.replies.end(key, None)
