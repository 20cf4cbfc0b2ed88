"""Health, limits, metrics and documentation, as the people who run the service meet them."""

import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.lora.spec import MAX_FEATURES
from service.settings import Settings
from tests.running import Service, in_thread, until

ENDS = {"succeeded": 2, "failed": 1, "cancelled": 1}


def metric(http: httpx.Client, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items()):
                return sample.value
    return 0.0


def test_probes_answer(http: httpx.Client) -> None:
    assert http.get("/livez").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    verbose = http.get("/readyz?verbose").json()
    assert verbose["checks"] == {"draining": "ok", "workers": "ok", "storage": "ok"}
    assert verbose["workers"]["of"] == 1


def test_a_service_that_is_leaving_is_not_ready_and_takes_no_training() -> None:
    with in_thread() as service:
        model = service.http.post("/models", json={"in_features": 4, "out_features": 4}).json()
        service.engine.drain()
        assert service.http.get("/readyz").status_code == 503
        assert service.http.get("/livez").status_code == 200
        refused = service.http.post(f"/models/{model['id']}/train")
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/draining")
        assert refused.headers["retry-after"]
        assert service.http.post(f"/models/{model['id']}/forward", json={"inputs": [0] * 4}).status_code == 200


def test_limits_name_every_setting_with_its_unit(http: httpx.Client) -> None:
    body = http.get("/limits").json()
    assert body["durable"] is False
    for limit in body["limits"].values():
        assert limit["unit"]
        assert limit["description"]
    settable = {limit["setting"] for limit in body["limits"].values() if limit["setting"]}
    assert settable == {
        f"LORA_{name}".upper() for name, field in Settings.model_fields.items() if field.json_schema_extra
    }
    assert body["limits"]["features"] == {
        "value": MAX_FEATURES,
        "unit": "features",
        "description": "in_features and out_features of a layer",
        "setting": None,
    }


def test_a_limit_may_have_a_fraction() -> None:
    with in_thread(batch_wait_ms=0.5) as service:
        assert service.http.get("/limits").json()["limits"]["batch_wait_ms"]["value"] == 0.5


def test_metrics_count_what_happens(http: httpx.Client) -> None:
    names = {"route": "/models/{model_id}/forward", "method": "POST", "status": "200"}
    before = metric(http, "lora_http_request_duration_seconds_count", **names), metric(http, "lora_forward_rows_total")
    models = metric(http, "lora_models")
    model = http.post("/models", json={"in_features": 8, "out_features": 4}).json()
    http.post(f"/models/{model['id']}/forward", json={"inputs": [[0] * 8] * 3})
    assert metric(http, "lora_models") == models + 1
    assert metric(http, "lora_http_request_duration_seconds_count", **names) == before[0] + 1
    assert metric(http, "lora_forward_rows_total") == before[1] + 3
    assert metric(http, "lora_memory_bytes") > 0
    assert model["id"] not in http.get("/metrics").text


def test_metrics_count_jobs_by_how_they_ended(http: httpx.Client) -> None:
    def ended() -> dict[str, float]:
        return {state: metric(http, "lora_jobs_ended_total", state=state) for state in ENDS}

    before, model = (
        ended(),
        http.post("/models", json={"in_features": 8, "out_features": 4, "init": "normal", "seed": 1}).json()["id"],
    )
    for plan in ({"epochs": 1}, {"epochs": 1}, {"lr": 1e6, "optimizer": "sgd"}):
        http.post(f"/models/{model}/train", json=plan, headers={"Prefer": "wait=30"}).raise_for_status()
    job = http.post(f"/models/{model}/train", json={"epochs": 10_000, "batch_size": 1}).json()["id"]
    http.post(f"/jobs/{job}/cancel").raise_for_status()
    assert {state: count - before[state] for state, count in ended().items()} == ENDS
    http.delete(f"/jobs/{job}").raise_for_status()
    assert metric(http, "lora_jobs_ended_total", state="cancelled") == before["cancelled"] + 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system tells nothing of a process")
def test_metrics_tell_of_the_process_each_name_once(http: httpx.Client) -> None:
    assert metric(http, "process_resident_memory_bytes") > 2**20
    assert metric(http, "process_max_fds") >= metric(http, "process_open_fds") > 3
    names = [family.name for family in text_string_to_metric_families(http.get("/metrics").text)]
    assert len(set(names)) == len(names)


def test_metrics_of_made_up_addresses_do_not_grow(http: httpx.Client) -> None:
    http.get("/nothing")
    size = len(http.get("/metrics").text.splitlines())
    for i in range(20):
        http.get(f"/nothing/{i}")
        http.request(f"VERB{i}", "/models")
    assert len(http.get("/metrics").text.splitlines()) <= size + 2 * 18  # at most two more series of one histogram


def test_the_documentation_needs_no_other_host(http: httpx.Client) -> None:
    page = http.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) >= 3
    for asset in assets:
        assert asset.startswith("/")
        assert http.get(asset).status_code == 200
    assert "https://" not in page


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/limits", "/metrics", "/openapi.json", "/docs"])
def test_system_routes_answer_while_a_model_trains(service: Service, path: str) -> None:
    http = service.http
    model = http.post("/models", json={"in_features": 64, "out_features": 10}).json()
    job = http.post(f"/models/{model['id']}/train", json={"epochs": 10_000, "batch_size": 1}).json()
    until(lambda: http.get(f"/jobs/{job['id']}").json()["state"] == "running")
    assert http.get(path).status_code == 200
    assert http.get(f"/jobs/{job['id']}").json()["state"] == "running"
    http.post(f"/jobs/{job['id']}/cancel")
