"""Worker processes are fed, heard, replaced when they die and ended at the end: with real processes throughout."""

import logging
import os
import select
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.jobs.nursery import Nursery
from service.jobs.queue import Queue
from service.jobs.workers import RESTART_SECONDS_MAX, STOP_SECONDS, Workers, pause_seconds
from tests.jobs.nurseries import ECHO, nursery
from tests.running import DEADLINE_SECONDS, gone, until


class Order:
    """A task for the echo process: what it is told, and all that came of it."""

    def __init__(self, job_id: str, *lines: str, key: str | None = None) -> None:
        self.job_id = job_id
        self.job_ids = [job_id]
        self.group, self.owner = job_id, ""
        self.key = key or job_id
        self.request: bytes | None = "\n".join(lines).encode()
        self.said: list[bytes] = []
        self.exit_codes: list[int] = []
        self.errors: list[Exception] = []
        self.over = threading.Event()
        self.begun = False
        self.times_ended = 0

    def begin(self) -> bytes | None:
        self.begun = True
        return self.request

    def heard(self, message: bytes) -> bool:
        self.said.append(message)
        return message == b"done"

    def lost(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)

    def broke(self, error: Exception) -> None:
        self.errors.append(error)

    def ended(self) -> None:
        self.times_ended += 1
        self.over.set()


class Orders(Queue[Order]):
    """A queue that frees the key of each order by itself."""

    def run(self, order: Order) -> Order:
        """Wait for the order to be over."""
        self.put(order)
        assert order.over.wait(DEADLINE_SECONDS)
        self.done([order])
        return order

    def take(self, timeout: float) -> Order | None:
        """The next order by itself, as workers want it."""
        return next(iter(super().take(timeout)), None)

    def put_back(self, order: Order) -> None:
        super().put_back([order])


@contextmanager
def running(count: int = 1, of: Nursery | None = None) -> Iterator[tuple[Workers, Orders]]:
    """Workers that are up, and the queue they are fed from."""
    with of or nursery() as place, started(place, count) as (workers, orders):
        until(lambda: workers.ready == count)
        yield workers, orders


@contextmanager
def started(place: Nursery, count: int, *arguments: str) -> Iterator[tuple[Workers, Orders]]:
    """Workers that may not be up yet, and the queue they are fed from."""
    orders = Orders(100)
    workers = Workers(place, count, orders, arguments)
    workers.start()
    try:
        yield workers, orders
    finally:
        workers.stop()


def alive(pid: int) -> bool:
    """Whether there is a process, be it one that only waits for its parent to take note of its end."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_says_what_it_has_to_say_and_takes_the_next_task():
    with running() as (workers, orders):
        for number in range(5):
            order = orders.run(Order(f"job_{number}", "say 1", f"say {number}", "say done"))
            assert order.said == [b"1", str(number).encode(), b"done"]
            assert (order.exit_codes, order.times_ended) == ([], 1)
        assert (workers.restarts, workers.failing, len(workers), len(workers.pids)) == (0, False, 1, 1)


def test_a_large_message_passes_both_ways():
    with running() as (_, orders):
        text = "x" * 20_000_000
        assert orders.run(Order("job_1", f"say {text}", "say done")).said == [text.encode(), b"done"]


def test_a_task_with_nothing_left_to_do_is_not_sent():
    with running() as (workers, orders):
        order = Order("job_1")
        order.request = None
        orders.run(order)
        assert (order.said, order.exit_codes, order.times_ended) == ([], [], 1)
        assert orders.run(Order("job_2", "say done")).said == [b"done"]
        assert workers.restarts == 0


@pytest.mark.parametrize("status", [0, 1, 42])
def test_the_task_of_a_worker_that_ends_is_lost_with_its_status(status):
    with running() as (workers, orders):
        (pid,) = workers.pids
        order = orders.run(Order("job_1", "say 1", f"exit {status}"))
        assert (order.said, order.exit_codes, order.times_ended) == ([b"1"], [status], 1)
        assert orders.run(Order("job_2", "say done")).said == [b"done"]
        assert (workers.restarts, workers.pids == [pid]) == (1, False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_task_of_a_worker_that_is_killed_is_lost_with_the_signal(number):
    with running() as (workers, orders):
        order = Order("job_1", "say 1")
        orders.put(order)
        until(lambda: order.said)
        os.kill(workers.pids[0], number)
        assert order.over.wait(DEADLINE_SECONDS)
        assert (order.exit_codes, order.times_ended) == ([-number], 1)
        assert orders.run(Order("job_2", "say done")).said == [b"done"]


def test_an_idle_worker_that_is_killed_is_replaced():
    with running(2) as (workers, orders):
        pids = workers.pids
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: workers.restarts == 1 and workers.ready == 2)
        assert pids[0] not in workers.pids
        assert pids[1] in workers.pids
        assert not alive(pids[0])
        assert orders.run(Order("job_1", "say done")).said == [b"done"]


def test_a_worker_is_replaced_as_often_as_it_dies():
    with running() as (workers, orders):
        for number in range(1, 6):
            assert orders.run(Order(f"job_{number}", "exit 3")).exit_codes == [3]
        until(lambda: workers.restarts == 5 and workers.ready == 1)
        assert not workers.failing  # each of them got ready


def test_the_next_start_comes_later_each_time_but_never_later_than_the_longest_pause():
    pauses = [pause_seconds(failed) for failed in range(1, 10)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pause_seconds(100_000) == RESTART_SECONDS_MAX


def test_starts_that_fail_are_counted_and_told_until_one_does_not(tmp_path: Path):
    permit = tmp_path / "may start"
    with nursery() as place, started(place, 2, "needs", str(permit)) as (workers, orders):
        assert not workers.failing
        until(lambda: workers.failing)
        assert workers.ready == 0
        permit.touch()
        until(lambda: workers.ready == 2)
        assert not workers.failing
        assert workers.restarts >= 6
        assert orders.run(Order("job_1", "say done")).said == [b"done"]


def test_one_worker_that_is_up_is_enough_not_to_be_failing(tmp_path: Path):
    # The first to come takes the permit away, so that every other start fails.
    (tmp_path / "permit").touch()
    with nursery() as place, started(place, 2, "takes", str(tmp_path / "permit")) as (workers, _):
        until(lambda: workers.restarts >= 3 and workers.ready == 1)
        assert not workers.failing


def test_a_start_that_the_system_refuses_is_tried_again(tmp_path: Path):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    place = nursery([str(python), *ECHO[1:]])
    with running(of=place) as (workers, _):
        python.unlink()
        for pid in (place.pid, workers.pids[0]):
            os.kill(pid, signal.SIGKILL)
        until(lambda: workers.failing)
        python.symlink_to(sys.executable)
        until(lambda: workers.ready == 1)


def test_stopping_ends_every_process_and_is_not_taken_for_a_death():
    with running(3) as (workers, orders):
        busy = Order("job_1", "say 1")
        orders.put(busy)
        until(lambda: busy.said)
        pids = workers.pids
        workers.stop()
        assert not any(alive(pid) for pid in pids)
        assert workers.restarts == 0
        assert (busy.exit_codes, busy.times_ended) == ([-signal.SIGKILL], 1)


def test_workers_may_be_stopped_before_they_are_ready_or_started():
    with nursery() as place:
        never = Workers(place, 2, Orders(1))
        never.stop()
        assert never.pids == []
        with started(place, 2, "never") as (young, _):
            until(lambda: len(young.pids) == 2)
            pids = young.pids
            young.stop()
            assert not any(alive(pid) for pid in pids)


def test_stopping_at_once_after_the_start_takes_no_time_and_leaves_no_process():
    stopped, seconds = [], []
    with nursery() as place:
        for _ in range(20):
            with started(place, 1, "never") as (workers, _):
                began = time.monotonic()
                workers.stop()
                seconds.append(time.monotonic() - began)
                stopped.append(workers)
        assert statistics.median(seconds) < STOP_SECONDS / 2
        assert not any(alive(pid) for workers in stopped for pid in workers.pids)


def test_stopping_does_not_wait_for_a_nursery_that_is_not_up_yet():
    with nursery([sys.executable, "-S", "-c", "import time; time.sleep(1_000)"]) as place:
        with started(place, 2) as (workers, _):
            until(lambda: sum(worker.starts for worker in workers._workers) == 2)
            began = time.monotonic()
            workers.stop()
            assert time.monotonic() - began < STOP_SECONDS / 2
            assert (workers.pids, workers.ready) == ([], 0)
        pid = place.pid
    assert not alive(pid)


def test_workers_go_on_without_their_nursery_and_get_another_when_they_die():
    place = nursery()
    with running(2, of=place) as (workers, orders):
        first, pids = place.pid, workers.pids
        busy = Order("job_1", "say 1")
        orders.put(busy)
        until(lambda: busy.said)
        os.kill(first, signal.SIGKILL)
        workers.tell("job_1", b"say 2\nsay done")
        assert busy.over.wait(DEADLINE_SECONDS)
        orders.done([busy])
        assert (busy.said, workers.pids, workers.restarts) == ([b"1", b"2", b"done"], pids, 0)
        assert orders.run(Order("job_2", "exit 3")).exit_codes == [-signal.SIGKILL]  # nobody is left to know better
        until(lambda: workers.restarts == 1 and workers.ready == 2)
        assert place.pid != first
        for number in range(2):
            orders.run(Order(f"job_{number}", "exit 4"))
        until(lambda: workers.ready == 2)


def test_stopping_ends_workers_that_have_lost_their_nursery():
    place = nursery()
    with running(2, of=place) as (workers, orders):
        busy = Order("job_1", "deaf", "say 1")
        orders.put(busy)
        until(lambda: busy.said)
        os.kill(place.pid, signal.SIGKILL)
        pids = workers.pids
        workers.stop()
        until(lambda: all(gone(pid) for pid in pids))
        until(lambda: busy.exit_codes == [-signal.SIGKILL])


def test_ctrl_c_in_the_terminal_reaches_no_worker():
    with running(2) as (workers, _):
        # A terminal sends the signal to processes of its own session.
        assert [os.getsid(pid) for pid in workers.pids] == workers.pids


def test_a_process_that_does_not_end_when_asked_is_killed():
    with running() as (workers, orders):
        (pid,) = workers.pids
        orders.run(Order("job_1", "deaf", "say done"))
        workers.stop()
        assert not alive(pid)


class Broken(Order):
    """A task whose server side goes wrong at one place."""

    def __init__(self, job_id: str, where: str) -> None:
        super().__init__(job_id, "say 1", "say done")
        self.where = where

    def begin(self) -> bytes | None:
        if self.where == "begin":
            raise RuntimeError(self.where)
        return super().begin()

    def heard(self, message: bytes) -> bool:
        if self.where in ("heard", "broke"):
            raise RuntimeError(self.where)
        return super().heard(message)

    def broke(self, error: Exception) -> None:
        super().broke(error)
        if self.where == "broke":
            raise RuntimeError(self.where)

    def ended(self) -> None:
        super().ended()
        if self.where == "ended":
            raise RuntimeError(self.where)


@pytest.mark.parametrize("where", ["begin", "heard", "broke", "ended"])
def test_a_task_that_breaks_on_the_servers_side_does_not_take_its_worker_along(where, caplog):
    with running() as (workers, orders), caplog.at_level(logging.ERROR):
        broken = orders.run(Broken("job_1", where))
        assert broken.times_ended == 1
        assert (len(broken.errors), broken.exit_codes) == (0 if where == "ended" else 1, [])
        assert orders.run(Order("job_2", "say done")).said == [b"done"]
        assert "a worker's task broke on the server's side" in caplog.text
        assert workers.restarts == 1


def test_a_message_about_a_task_reaches_the_process_that_has_it():
    with running(2) as (workers, orders):
        one, other = Order("job_1", "say 1"), Order("job_2", "say 2")
        orders.put(one)
        orders.put(other)
        until(lambda: one.said and other.said)
        workers.tell("job_2", b"say hello\nsay done")
        assert other.over.wait(DEADLINE_SECONDS)
        assert other.said == [b"2", b"hello", b"done"]
        assert (one.said, one.over.is_set()) == ([b"1"], False)
        workers.tell("job_1", b"say done")
        assert one.over.wait(DEADLINE_SECONDS)


def test_a_message_about_any_job_of_a_task_reaches_its_process():
    with running() as (workers, orders):
        order = Order("job_1", "say 1")
        order.job_ids = ["job_1", "job_2"]
        orders.put(order)
        until(lambda: order.said)
        workers.tell("job_3", b"exit 1")
        workers.tell("job_2", b"say 2")
        workers.tell("job_1", b"say done")
        assert order.over.wait(DEADLINE_SECONDS)
        assert order.said == [b"1", b"2", b"done"]


def test_a_process_has_what_was_added_to_the_environment(monkeypatch):
    monkeypatch.setenv("LORA_TEST_ONE", "ours")
    monkeypatch.setenv("LORA_TEST_TWO", "ours")
    with running(of=nursery(LORA_TEST_TWO="added")) as (workers, _):
        (pid,) = workers.pids
        found = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert {b"LORA_TEST_ONE=ours", b"LORA_TEST_TWO=added"} <= set(found)


def test_a_message_about_a_task_that_nobody_has_reaches_nobody():
    with running() as (workers, orders):
        workers.tell("job_1", b"exit 1")
        orders.run(Order("job_1", "say done"))
        workers.tell("job_1", b"exit 1")
        assert orders.run(Order("job_2", "say done")).said == [b"done"]
        assert workers.restarts == 0


def test_a_message_to_a_process_that_has_just_died_is_dropped():
    with running() as (workers, orders):
        order = Order("job_1", "say 1")
        orders.put(order)
        until(lambda: order.said)
        os.kill(workers.pids[0], signal.SIGKILL)
        while not order.over.is_set():
            workers.tell("job_1", b"say more")
        assert order.exit_codes == [-signal.SIGKILL]


def test_a_message_does_not_wait_for_a_process_that_takes_nothing_in_and_follows_the_request():
    with running() as (workers, orders):
        (pid,) = workers.pids
        os.kill(pid, signal.SIGSTOP)
        try:
            stuck = Order("job_1", f"say {'x' * 20_000_000}")
            orders.put(stuck)
            pipe = workers._workers[0]._pipe
            until(lambda: stuck.begun and not select.select([], [pipe], [], 0)[1])  # the pipe is full of the request
            telling = threading.Thread(target=workers.tell, args=("job_1", b"say done"), daemon=True)
            telling.start()
            telling.join(DEADLINE_SECONDS)
            held_up = telling.is_alive()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert stuck.over.wait(DEADLINE_SECONDS)
        assert not held_up
        assert [len(said) for said in stuck.said] == [20_000_000, len("done")]


def test_tasks_of_one_key_never_run_at_the_same_time():
    with running(3) as (workers, orders):
        first, second, other = (Order(f"job_{n}", "say 1", key=key) for n, key in enumerate("aab"))
        for order in (first, second, other):
            orders.put(order)
        until(lambda: first.said and other.said)
        assert not second.begun
        workers.tell(first.job_id, b"say done")
        assert first.over.wait(DEADLINE_SECONDS)
        orders.done([first])
        until(lambda: second.said)
        for order in (second, other):
            workers.tell(order.job_id, b"say done")
            assert order.over.wait(DEADLINE_SECONDS)
