"""`lora top`: what it shows is what the service says, and it leaves the terminal as it was."""

import json
import signal
import termios
from datetime import UTC, datetime, timedelta

import pytest

from service.api.problems import body_of
from service.cli import prometheus, view
from service.cli.calling import Place
from service.cli.top import looked
from service.client import Client
from service.errors import Draining
from tests.cli.terminal import done, lora, on_terminal
from tests.client.servers import answer, scripted
from tests.running import Service

TEXT = """# HELP lora_jobs Jobs remembered, by state.
lora_jobs{state="queued"} 2.0
lora_jobs{state="running"} 1.0
lora_forwards_total 10.0
lora_build_info{device="cpu",version="0.1.0"} 1.0
lora_http_request_duration_seconds_bucket{le="0.001",method="POST",route="/models/{model_id}/forward",status="200"} 50.0
lora_http_request_duration_seconds_bucket{le="0.01",method="POST",route="/models/{model_id}/forward",status="200"} 100.0
lora_http_request_duration_seconds_bucket{le="+Inf",method="POST",route="/models/{model_id}/forward",status="200"} 100.0
lora_http_request_duration_seconds_bucket{le="0.001",method="GET",route="/models",status="200"} 0.0
lora_http_request_duration_seconds_bucket{le="+Inf",method="GET",route="/models",status="200"} 9.0
"""


def test_numbers_are_found_by_their_labels() -> None:
    reading = prometheus.read(TEXT, 0)
    assert reading.value("lora_jobs", state="queued") == 2
    assert reading.value("lora_jobs") == 3
    assert reading.value("lora_nothing") == 0
    assert reading.label("lora_build_info", "version") == "0.1.0"
    assert reading.label("lora_nothing", "version") is None


def test_a_rate_is_what_came_between_two_readings() -> None:
    before, now = prometheus.read(TEXT, 1.0), prometheus.read(TEXT.replace("total 10", "total 16"), 3.0)
    assert prometheus.rate(before, now, "lora_forwards_total") == 3.0
    assert prometheus.rate(now, before, "lora_forwards_total") > 0  # a server that began anew


def test_a_quantile_is_of_the_forwards_alone_and_of_the_time_between() -> None:
    now = prometheus.read(TEXT, 0)
    assert prometheus.quantile(0.5, None, now) == pytest.approx(0.001)
    assert prometheus.quantile(0.75, None, now) == pytest.approx(0.0055)
    assert prometheus.quantile(0.5, now, now) is None
    assert prometheus.quantile(0.5, None, prometheus.read("", 0)) is None


def test_the_numbers_are_those_of_the_service(service: Service) -> None:
    model = done("create", "--in", 4, "--out", 2, "--rank", 1, "-q", url=service.url)
    job = done("train", model, "--epochs", 10_000, "--batch-size", 1, "-q", url=service.url)
    try:
        told = json.loads(done("top", "--json", url=service.url))
        assert told["models"] == len(service.engine.registry)
        assert [each["id"] for each in told["jobs"]] == [job]
        assert told["running"] + told["queued"] == 1
        shown = done("top", "--once", url=service.url)
        assert job in shown
        assert all(title in shown for title in ("jobs", "forwards/s", "latency", "memory"))
    finally:
        done("cancel", job, url=service.url)


@pytest.mark.parametrize("how", ["q", "ctrl-c"])
def test_it_is_left_by_q_or_ctrl_c_and_the_terminal_is_as_it_was(service: Service, how: str) -> None:
    with on_terminal("top", "--every", "0.1", LORA_URL=service.url) as terminal:
        before = termios.tcgetattr(terminal.end)
        terminal.shows("no job is under way")
        if how == "q":
            terminal.press("q")
        else:
            terminal.process.send_signal(signal.SIGINT)
        assert terminal.ended() == 0
        assert termios.tcgetattr(terminal.end) == before
    assert terminal.written.count("\x1b[?1049h") == terminal.written.count("\x1b[?1049l") == 1
    assert "Traceback" not in terminal.seen


def test_a_service_that_is_not_there_is_told_in_one_line() -> None:
    ended = lora("top", "--once", url="http://127.0.0.1:9")
    assert (ended.exit_code, ended.stderr.count("\n")) == (5, 1)


def test_the_time_that_is_left_is_that_of_the_epochs_so_far(service: Service) -> None:
    model = done("create", "--in", 4, "--out", 2, "--rank", 1, "-q", url=service.url)
    with Client(service.url) as client:
        job = client.train(model, epochs=4, wait=30)
    assert view.left(job, datetime.now(UTC)) == ""
    assert job.started_at is not None
    half = job.model_copy(update={"state": type(job.state)("running"), "epoch": 1})
    assert view.left(half, job.started_at + timedelta(hours=1)) == "3:00:00"


def test_a_job_stays_in_view_when_it_ends_and_leaves_it_when_it_is_deleted(service: Service) -> None:
    model = done("create", "--in", 4, "--out", 2, "--rank", 1, "-q", url=service.url)
    place = Place(service.url, None, as_json=False)
    with Client(service.url) as client:
        job = client.train(model, epochs=1, wait=30)
        before = view.View(service.url, jobs=[job.model_copy(update={"state": type(job.state)("running")})])
        assert [each.state for each in looked(place, client, before).jobs] == ["succeeded"]
        client.delete_job(job)
        assert looked(place, client, before).jobs == []


def test_a_service_that_says_no_after_a_first_look_leaves_what_was_seen(service: Service) -> None:
    place = Place(service.url, None, as_json=False)
    with Client(service.url) as client:
        seen = looked(place, client, view.View(service.url))
    no = answer("503 No", body_of(Draining("it is stopping"), "/jobs", "r1"))
    with scripted(no) as other, Client(other.url, max_retries=0) as refused:
        later = looked(place, refused, seen)
    assert later.numbers == seen.numbers
    assert "it is stopping" in later.trouble
