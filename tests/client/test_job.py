"""Jobs are followed, waited for and cancelled, over connections that break too."""

import asyncio
import os
import pty
import subprocess
import sys
import threading
import time
from itertools import islice
from typing import Any

import pytest

from service.client import AsyncClient, JobFailed, Unreachable
from service.client.record import sparks
from service.jobs.state import State
from tests.client.conftest import Connect
from tests.client.servers import answer, breaking, scripted
from tests.running import Service

LONG = {"epochs": 10_000, "batch_size": 1}
DIVERGES = {"epochs": 100, "optimizer": "sgd", "lr": 1e6}


@pytest.fixture
def model(client: Any) -> Any:
    return client.create(in_features=8, out_features=4, rank=2)


def test_a_job_has_the_fields_of_the_service_and_becomes_what_it_is(client: Any, model: Any) -> None:
    job = client.train(model, epochs=4, seed=7)
    assert (job.model_id, job.epochs, job.plan["seed"]) == (model.id, 4, 7)
    assert job.wait().state is State.SUCCEEDED
    assert job.state == "succeeded"
    assert job.ended
    assert (job.epoch, len(job.losses), job.model_version) == (4, 4, 1)
    assert job.metrics["final_loss"] == client.model(model).last_loss
    again = client.job(job.id)
    assert (again.losses, again.finished_at) == (job.losses, job.finished_at)


def test_its_events_come_in_order_from_any_place(client: Any, model: Any) -> None:
    job = client.train(model, epochs=3)
    events = list(job.events())
    assert [event.id for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.kind for event in events] == ["state", "state", "epoch", "epoch", "epoch", "state", "done"]
    assert events[-1].data["state"] == "succeeded"
    assert list(job.events(after=5)) == events[5:]
    assert list(job.events(after=7)) == []


@pytest.mark.parametrize("bytes_allowed", [(0,), (400,), (350, 450), (500, 20)])
def test_its_events_go_on_where_a_broken_connection_left_them(
    connect: Connect, client: Any, model: Any, service: Service, bytes_allowed: tuple[int, ...]
) -> None:
    job = client.train(model, wait=30, epochs=20)
    expected = list(job.events())
    with breaking(service.url, *bytes_allowed) as url:
        through = connect(url).job(job.id) if bytes_allowed == (0,) else connect(url, max_retries=3).job(job.id)
        assert list(through.events()) == expected


def test_events_that_end_before_the_job_are_given_up(connect: Connect, client: Any, model: Any) -> None:
    job = client.train(model, wait=30)
    read = job.model_dump_json().encode()
    begun, over = b'id: 1\nevent: state\ndata: {"state": "queued"}\n\n', b"event: shutdown\ndata: {}\n\n"
    with scripted(*(answer("200 OK", body) for body in (read, begun, over))) as server:
        events = connect(server.url, max_retries=1).job(job.id).events()
        with pytest.raises(Unreachable, match="the events end before the job does"):
            list(islice(events, 9))
    assert server.headers("Last-Event-ID") == [None, "0", "1"]


def test_waiting_ends_in_time_and_the_job_goes_on(client: Any, model: Any) -> None:
    job = client.train(model, **LONG)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=f"{job.id} has not ended after 0.3 s"):
        job.wait(0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert not job.refresh().ended
    assert job.cancel().state is State.CANCELLED
    assert job.wait(0).state is State.CANCELLED


def test_a_job_that_fails_is_told_and_raises_only_when_checked(client: Any, model: Any) -> None:
    job = client.train(model, **DIVERGES).wait()
    assert (job.state, job.reason) == (State.FAILED, "diverged")
    with pytest.raises(JobFailed, match=f"{job.id} is failed: "):
        job.wait(check=True)
    assert client.train(model, epochs=1).wait(check=True).state is State.SUCCEEDED


def test_training_with_wait_gives_the_job_when_it_ended_or_the_time_is_up(client: Any, model: Any) -> None:
    assert client.train(model, wait=30).ended
    began = time.monotonic()
    job = client.train(model, wait=1, **LONG)
    assert not job.ended
    assert 1 <= time.monotonic() - began < 10
    job.cancel()


def test_jobs_are_listed_by_model_and_state(client: Any, model: Any) -> None:
    done = client.train(model, wait=30)
    failed = client.train(model, **DIVERGES).wait()
    assert [job.id for job in client.jobs(model)] == [done.id, failed.id]
    (listed,) = client.jobs(model.id, state="failed")
    assert listed.refresh().reason == "diverged"
    client.delete_job(failed)
    assert [job.id for job in client.jobs(model)] == [done.id]


def test_a_job_shows_itself_in_a_line(client: Any, model: Any) -> None:
    job = client.train(model, wait=30, epochs=3)
    assert repr(job).startswith(f"Job({job.id}: succeeded, epoch 3/3, loss {job.losses[0]:.4g} → ")
    assert job.id in job._repr_html_()
    assert "failed (diverged)" in repr(client.train(model, **DIVERGES).wait())
    assert sparks([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparks([1.0]) == "▁"
    assert len(sparks([float(number) for number in range(10_000)])) <= 24


WAITING = """
import sys
from service.client import Client
with Client(sys.argv[1]) as client:
    model = client.create(in_features=64, out_features=10)
    job = client.train(model, epochs=40, batch_size=50)
    print(job.wait(progress={progress}).state)
"""


def waited(url: str, progress: str, **streams: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", WAITING.format(progress=progress), url]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, **streams)


@pytest.mark.parametrize(("progress", "shows"), [("None", True), ("False", False)])
def test_a_bar_is_shown_in_a_terminal(service: Service, progress: str, shows: bool) -> None:
    ours, theirs = pty.openpty()
    seen = bytearray()
    with waited(service.url, progress, stderr=theirs) as process:
        os.close(theirs)

        def read() -> None:
            try:
                while some := os.read(ours, 65_536):
                    seen.extend(some)
            except OSError:  # the terminal has no other end any more
                pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            assert process.stdout is not None
            assert process.stdout.read() == b"succeeded\n"
        finally:
            process.kill()
        reader.join()
    os.close(ours)
    assert (b"40/40" in seen and b"loss 1." in seen) == shows
    assert bool(seen) == shows


def test_nothing_is_shown_off_a_terminal(service: Service) -> None:
    with waited(service.url, "True", stderr=subprocess.PIPE) as process:
        try:
            assert process.communicate(timeout=60) == (b"succeeded\n", b"")
        finally:
            process.kill()


def test_asynchronous_jobs_are_waited_for_together_and_a_stream_may_be_left(service: Service) -> None:
    async def run() -> None:
        async with AsyncClient(service.url) as client:
            model = await client.create(in_features=8, out_features=4)
            jobs = [await client.train(model, epochs=3) for _ in range(3)]
            ended = await asyncio.gather(*(job.wait(progress=False, check=True) for job in jobs))
            assert [job.model_version for job in ended] == [1, 2, 3]
            long = await client.train(model, **LONG)
            async for event in long.events():
                assert event.id == 1
                break
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(long.wait(), 0.2)
            assert (await long.cancel()).ended

    asyncio.run(run())
