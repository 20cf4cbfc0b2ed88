"""More than there is room for: many models (F14), a full queue (F15), more forwards than can be computed (F16)."""

import statistics
from pathlib import Path

import httpx

from tests.faults import flood, many
from tests.running import as_process, until

QUEUE = 16


def test_a_thousand_models_cost_little_more_than_their_tensors_and_are_there_after_a_kill(tmp_path: Path) -> None:
    """F14."""
    found = many.run(1_000, tmp_path)
    assert found.count == 1_000
    assert found.list_p99_seconds < 0.5  # a core may be another's for a moment
    assert found.bytes_each < 16 * 1_024  # 4 KiB, and what all models share of a process that has just begun
    assert found.metrics_growth < 60
    assert found.start_seconds < 30


def test_of_a_flood_of_trainings_the_queue_takes_what_it_may_and_refuses_the_rest_at_once() -> None:
    """F15."""
    with as_process(LORA_QUEUE_MAX=str(QUEUE)) as (_, url), httpx.Client(base_url=url, timeout=60) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        model = http.post("/models", json=flood.TRAINED).json()["id"]
        running = http.post(f"/models/{model}/train", json=flood.PLAN).json()["id"]
        until(lambda: http.get(f"/jobs/{running}").json()["state"] == "running")
        answers = flood.trainings(url, model, 200)
        assert answers.statuses == {202: QUEUE, 503: 200 - QUEUE}
        assert {(after, problem["reason"]) for after, problem in answers.refusals} == {("1", "queue-full")}
        assert statistics.median(answers.seconds[503]) < 0.05
        assert http.post(f"/models/{model}/forward", json={"inputs": [0] * 64}).status_code == 200
        for state in ("queued", "running"):
            for job in http.get("/jobs", params={"state": state, "limit": 200}).json()["items"]:
                http.post(f"/jobs/{job['id']}/cancel").raise_for_status()
        last = http.post(f"/models/{model}/train", json={"epochs": 1}, headers={"Prefer": "wait=60"})
        assert last.json()["state"] == "succeeded"


def test_a_flood_of_forwards_stops_neither_the_training_nor_the_probes_and_breaks_nothing() -> None:
    """F16."""
    with flood.trainer() as service:
        found = service.flooded(4, flood.ASKERS, rate=1_000)
    assert set(found.answers.statuses) == {200, 503}
    assert {after for after, _ in found.answers.refusals} <= {"1"}
    assert found.forwards > 0
    assert found.epochs > 0
    assert statistics.median(found.probes) < 0.1
    assert statistics.median(found.answers.seconds[503]) < 0.1  # at once, and not when it is too late
