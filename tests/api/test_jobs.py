"""Jobs over HTTP: listing, live events with replay, CSV, cancelling, forgetting."""

import csv
import io
import json
import os
import signal
import time
from typing import Any

import httpx
import pytest

from tests.running import Service, in_thread, until

LONG = {"epochs": 10_000, "batch_size": 1}


def create(http: httpx.Client) -> str:
    model_id: str = http.post("/models", json={"in_features": 64, "out_features": 10}).json()["id"]
    return model_id


def finished(http: httpx.Client, **plan: Any) -> dict[str, Any]:
    answer = http.post(f"/models/{create(http)}/train", json=plan, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200
    job: dict[str, Any] = answer.json()
    return job


def started(http: httpx.Client) -> dict[str, Any]:
    job: dict[str, Any] = http.post(f"/models/{create(http)}/train", json=LONG).json()
    until(lambda: http.get(f"/jobs/{job['id']}").json()["state"] == "running")
    return job


def read_stream(text: str) -> list[dict[str, Any]]:
    """The events of a stream, as a browser's EventSource reads them."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            events.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
    return events


def test_events_tell_the_whole_life_of_a_job_in_numbered_order(http: httpx.Client) -> None:
    job = finished(http, epochs=3)
    answer = http.get(f"/jobs/{job['id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("retry: 2000\n\n")
    epochs = [
        {"id": k + 2, "event": "epoch", "data": {"epoch": k, "epochs": 3, "loss": loss}}
        for k, loss in enumerate(job["losses"], start=1)
    ]
    assert read_stream(answer.text) == [
        {"id": 1, "event": "state", "data": {"state": "queued", "reason": None}},
        {"id": 2, "event": "state", "data": {"state": "running", "reason": None}},
        *epochs,
        {"id": 6, "event": "state", "data": {"state": "succeeded", "reason": None}},
        {"id": 7, "event": "done", "data": {"state": "succeeded", "reason": None}},
    ]


def test_the_same_list_comes_as_json(http: httpx.Client) -> None:
    job = finished(http, epochs=3)
    streamed = read_stream(http.get(f"/jobs/{job['id']}/events").text)
    listed = http.get(f"/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()
    assert listed == {"items": streamed, "next_cursor": None}


@pytest.mark.parametrize("after", range(8))
def test_a_stream_goes_on_after_the_last_event_the_client_saw(http: httpx.Client, after: int) -> None:
    job = finished(http, epochs=3)
    path = f"/jobs/{job['id']}/events"
    answers = [http.get(path, headers={"Last-Event-ID": str(after)}), http.get(path, params={"after": after})]
    if after == 7:
        assert [answer.status_code for answer in answers] == [204, 204]
    else:
        for answer in answers:
            assert [event["id"] for event in read_stream(answer.text)] == list(range(after + 1, 8))


@pytest.mark.parametrize("last", ["garbage", "-1", "9" * 30, "99", "1.5", "", "x" * 10_000])
def test_a_last_event_id_that_means_nothing_replays_from_the_start(http: httpx.Client, last: str) -> None:
    job = finished(http, epochs=1)
    answer = http.get(f"/jobs/{job['id']}/events", headers={"Last-Event-ID": last})
    assert answer.status_code == 200
    assert [event["id"] for event in read_stream(answer.text)] == [1, 2, 3, 4, 5]


def test_a_number_that_a_job_has_not_come_to_yet_is_waited_for(service: Service) -> None:
    http = service.http
    job = started(http)
    ahead = len(http.get(f"/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()["items"]) + 50
    with http.stream("GET", f"/jobs/{job['id']}/events", headers={"Last-Event-ID": str(ahead)}) as stream:
        assert next(line for line in stream.iter_lines() if line.startswith("id: ")) == f"id: {ahead + 1}"
    http.post(f"/jobs/{job['id']}/cancel")


@pytest.mark.parametrize("after", ["abc", "-1", "1.5", "", "+1"])
def test_an_after_in_the_address_that_is_no_number_is_refused(http: httpx.Client, after: str) -> None:
    job = finished(http, epochs=1)
    for path in (f"/jobs/{job['id']}/events", "/events"):
        problem = http.get(path, params={"after": after}).json()
        assert (problem["type"], problem["errors"][0]["pointer"]) == ("/problems/validation", "/after")
        assert problem["detail"].startswith("after is ")


def test_events_arrive_while_the_job_runs(service: Service) -> None:
    http = service.http
    job = started(http)
    with http.stream("GET", f"/jobs/{job['id']}/events") as stream:
        lines = stream.iter_lines()
        epochs = 0
        while epochs < 3:
            epochs += next(lines) == "event: epoch"
        assert http.get(f"/jobs/{job['id']}").json()["state"] == "running"
        http.post(f"/jobs/{job['id']}/cancel")
        rest = list(lines)
    assert 'data: {"state":"cancelled","reason":null}' in rest
    assert rest[-3] == "event: done"


def test_numbers_have_no_gap_even_where_epochs_come_by_the_thousand(http: httpx.Client) -> None:
    job = finished(http, epochs=2_000, data={"kind": "random", "n_samples": 1})
    events = read_stream(http.get(f"/jobs/{job['id']}/events").text)
    assert [event["id"] for event in events] == list(range(1, 2_005))
    assert [event["data"]["loss"] for event in events if event["event"] == "epoch"] == job["losses"]


def test_one_stream_tells_of_all_jobs_and_can_be_resumed(service: Service) -> None:
    http = service.http
    with http.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        first, second = finished(http, epochs=1), finished(http, epochs=2)
        text = ""
        while text.count("event: done") < 2 or not text.endswith("\n\n"):
            text += next(lines) + "\n"
    events = read_stream(text)
    for job, epochs in ((first, 1), (second, 2)):
        own = [event for event in events if event["data"]["job_id"] == job["id"]]
        assert [event["data"]["number"] for event in own] == list(range(1, epochs + 5))
        assert {event["data"]["model_id"] for event in own} == {job["model_id"]}
    places = [event["id"] for event in events]
    assert places == list(range(places[0], places[0] + len(places)))
    with http.stream("GET", "/events", headers={"Last-Event-ID": str(places[2])}) as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("id: ")) == f"id: {places[3]}"


def test_an_unknown_job_is_404_and_never_an_empty_stream(http: httpx.Client) -> None:
    answer = http.get(f"/jobs/job_{'0' * 26}/events", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/job-not-found"


def test_too_many_streams_are_503_and_a_closed_one_makes_room() -> None:
    with in_thread(sse_streams=1) as service:
        with service.http.stream("GET", "/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            refused = service.http.get("/events")
            assert refused.status_code == 503
            assert "LORA_SSE_STREAMS" in refused.json()["detail"]

        def opens() -> bool:
            with service.http.stream("GET", "/events") as again:
                return again.status_code == 200

        until(opens)


def test_losses_come_as_csv_that_reads_back_exactly(http: httpx.Client) -> None:
    job = finished(http, epochs=4)
    answer = http.get(f"/jobs/{job['id']}/losses.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["loss"]) for row in rows] == job["losses"]


def test_a_running_job_stops_within_a_step_and_publishes_nothing(service: Service) -> None:
    http = service.http
    job = started(http)
    cancelled = http.post(f"/jobs/{job['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert cancelled["finished_at"]
    assert http.post(f"/jobs/{job['id']}/cancel").json() == cancelled
    assert finished(http)["state"] == "succeeded"  # the one worker is free again
    assert http.get(f"/jobs/{job['id']}").json() == cancelled
    assert http.get(f"/models/{job['model_id']}").json()["version"] == 0


def test_a_waiting_job_is_cancelled_before_it_begins(service: Service) -> None:
    http = service.http
    running = started(http)
    waiting = http.post(f"/models/{running['model_id']}/train").json()
    cancelled = http.post(f"/jobs/{waiting['id']}/cancel").json()
    assert (cancelled["state"], cancelled["started_at"], cancelled["duration_seconds"]) == ("cancelled", None, None)
    http.post(f"/jobs/{running['id']}/cancel")
    events = read_stream(http.get(f"/jobs/{waiting['id']}/events").text)
    assert [event["data"]["state"] for event in events] == ["queued", "cancelled", "cancelled"]


def test_a_job_that_has_ended_stays_as_it_is_when_cancelled(http: httpx.Client) -> None:
    job = finished(http)
    assert http.post(f"/jobs/{job['id']}/cancel").json() == job


def test_only_a_job_that_has_ended_can_be_forgotten(service: Service) -> None:
    http = service.http
    job = started(http)
    refused = http.delete(f"/jobs/{job['id']}")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/job-active")
    http.post(f"/jobs/{job['id']}/cancel")
    assert http.delete(f"/jobs/{job['id']}").status_code == 204
    assert http.get(f"/jobs/{job['id']}").json()["type"] == "/problems/job-not-found"
    assert http.get(f"/models/{job['model_id']}").status_code == 200


def test_jobs_are_listed_by_model_and_state(http: httpx.Client) -> None:
    job = finished(http)
    second = http.post(f"/models/{job['model_id']}/train", headers={"Prefer": "wait=60"}).json()

    def listed(**query: object) -> list[str]:
        return [item["id"] for item in http.get("/jobs", params={"model_id": job["model_id"], **query}).json()["items"]]

    assert listed() == [job["id"], second["id"]]
    assert listed(state="succeeded") == [job["id"], second["id"]]
    assert listed(state="running") == []
    assert http.get("/jobs", params={"state": "paused"}).status_code == 422


def test_the_oldest_finished_jobs_are_forgotten_first() -> None:
    with in_thread(keep_jobs=2) as service:
        jobs = [finished(service.http)["id"] for _ in range(3)]
        assert [item["id"] for item in service.http.get("/jobs").json()["items"]] == jobs[1:]


def test_a_killed_worker_fails_its_job_within_a_second_and_nothing_else_notices() -> None:
    with in_thread() as service:
        http = service.http
        for kills in range(1, 4):
            job = started(http)
            killed = time.monotonic()
            os.kill(service.engine.workers.pids[0], signal.SIGKILL)
            until(lambda job=job: http.get(f"/jobs/{job['id']}").json()["state"] == "failed")
            seconds = time.monotonic() - killed
            assert http.get(f"/jobs/{job['id']}").json()["reason"] == "worker-died"
            forward = http.post(f"/models/{job['model_id']}/forward", json={"inputs": [0.0] * 64})
            assert forward.status_code == 200
            assert finished(http)["state"] == "succeeded"
            assert f"lora_worker_restarts_total {kills}.0" in http.get("/metrics").text
            if seconds < 1:  # once is enough: a machine that stalls is late by itself
                break
        assert seconds < 1


def test_curves_come_by_few_points_where_few_are_asked_for(http: httpx.Client) -> None:
    model = http.post("/models", json={"in_features": 8, "out_features": 4}).json()
    plan = {"epochs": 300, "validation": 0.2, "data": {"kind": "teacher", "noise": 0.5}}
    whole = http.post(f"/models/{model['id']}/train", json=plan, headers={"Prefer": "wait=30"}).json()
    assert whole["curve_epochs"] is None
    listed = http.get("/jobs", params={"model_id": model["id"], "points": 40}).json()["items"][0]
    for thin in (http.get(f"/jobs/{whole['id']}", params={"points": 40}).json(), listed):
        epochs = thin["curve_epochs"]
        assert len(epochs) <= 40
        for name in ("losses", "validation_losses"):
            assert thin[name] == [whole[name][epoch - 1] for epoch in epochs]
            assert (min(thin[name]), max(thin[name])) == (min(whole[name]), max(whole[name]))
        assert thin["epoch"] == 300
    assert http.get(f"/jobs/{whole['id']}", params={"points": 0}).json()["losses"] == []
    assert http.get(f"/jobs/{whole['id']}", params={"points": 300}).json() == whole
    assert http.get(f"/jobs/{whole['id']}", params={"points": -1}).status_code == 422
