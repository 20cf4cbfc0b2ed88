"""A training process does one task after another, listens while it trains, and ends when its server does."""

import contextlib
import os
import resource
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from service.codecs.message import pack, unpack
from service.jobs.nursery import Child, of_workers
from service.training.plan import Plan
from service.training.sources import Random
from service.worker import NICENESS
from tests.running import DEADLINE_SECONDS
from tests.test_task import WEIGHTS, header


@contextlib.contextmanager
def process() -> Iterator[tuple[Child, Connection]]:
    """A worker process and the server's end of its pipe; the process has said that it is ready."""
    with of_workers(1) as nursery:
        worker = nursery.fork("cpu", "1")
        try:
            assert said(worker.pipe) == {"say": "ready"}
            yield worker, worker.pipe
        finally:
            worker.close()
            worker.wait(DEADLINE_SECONDS)


def said(pipe: Connection) -> dict[str, Any]:
    """The next thing a worker says; of epochs, how many there are."""
    assert pipe.poll(DEADLINE_SECONDS)
    line, arrays = unpack(pipe.recv_bytes())
    return {**line, "epochs": len(arrays["losses"])} if line["say"] == "epochs" else line


def last_said(pipe: Connection) -> tuple[dict[str, Any], int]:
    """The last that is said of a job, before its task is done, and how many epochs were told of before."""
    epochs, last = 0, {}
    while (line := said(pipe)) != {"say": "done"}:
        epochs += line.get("epochs", 0)
        last = line
    return last, epochs


def test_a_worker_process_works_listens_and_ends_with_its_server():
    endless = Plan(epochs=10_000, seed=0, data=Random(n_samples=500_000, seed=0), path="batch")
    with process() as (worker, pipe):
        # It leaves the processor to whoever serves.
        assert os.getpriority(os.PRIO_PROCESS, worker.pid) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)

        pipe.send_bytes(pack(header(job="job_1"), WEIGHTS))
        line, epochs = last_said(pipe)
        assert (line["say"], epochs) == ("succeeded", 4)

        pipe.send_bytes(pack(header(job="job_2"), WEIGHTS))
        assert last_said(pipe)[0]["say"] == "succeeded"

        # A cancel reaches the job it names, while that runs, and no other.
        pipe.send_bytes(pack(header(endless, job="job_3"), WEIGHTS))
        pipe.send_bytes(pack({"do": "cancel", "job": "job_4"}))
        assert said(pipe)["say"] == "epochs"
        pipe.send_bytes(pack({"do": "cancel", "job": "job_3"}))
        line, epochs = last_said(pipe)
        assert (line.get("say", "epochs"), epochs < 10_000) == ("epochs", True)


# It is about to speak when the server goes, or in a step; either training takes minutes.
@pytest.mark.parametrize(("n_samples", "batch_size"), [(1_000, 10), (500_000, None)])
def test_a_worker_whose_server_goes_while_it_trains_ends_at_once_and_without_a_word(n_samples, batch_size, capfd):
    endless = Plan(epochs=10_000, batch_size=batch_size, seed=0, data=Random(n_samples=n_samples, seed=0), path="batch")
    with process() as (worker, pipe):
        pipe.send_bytes(pack(header(endless), WEIGHTS))
        assert said(pipe)["say"] == "epochs"
        pipe.close()
        assert worker.wait(DEADLINE_SECONDS) == 0
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_cannot_make_sense_of_a_message_ends_and_says_why(capfd):
    with process() as (worker, pipe):
        pipe.send_bytes(b"nonsense")
        assert worker.wait(DEADLINE_SECONDS) == 1
    assert "a message of the server could not be read" in capfd.readouterr().err


def test_a_worker_without_the_memory_for_a_message_ends(capfd):
    with process() as (worker, pipe):
        held = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (held + 2**24, held + 2**24))
        with contextlib.suppress(ConnectionError):  # it ends before it has taken everything in
            pipe.send_bytes(bytes(2**28))
        assert worker.wait(DEADLINE_SECONDS) == 1
    assert "MemoryError" in capfd.readouterr().err
