"""A nursery forks off processes, tells how they ended, and leaves none behind: with real processes throughout."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.nursery import Child, Nursery
from tests.jobs.nurseries import ROOT, nursery
from tests.running import DEADLINE_SECONDS, children, gone, until


@contextlib.contextmanager
def forked(place: Nursery, *arguments: str) -> Iterator[Child]:
    """A process that is up, ended afterwards."""
    child = place.fork(*arguments)
    try:
        heard(child)
        yield child
    finally:
        child.kill()
        child.wait(DEADLINE_SECONDS)
        child.close()


def heard(child: Child) -> bytes:
    """The next thing that a process says."""
    assert child.pipe.poll(DEADLINE_SECONDS)
    return child.pipe.recv_bytes()


def told(child: Child, order: str) -> int | None:
    """The exit code of a process that does as it is told."""
    child.pipe.send_bytes(order.encode())
    return child.wait(DEADLINE_SECONDS)


def ended(child: Child) -> bool:
    """Whether a pipe is at its end, for which nobody may have a copy of the other end."""
    assert child.pipe.poll(DEADLINE_SECONDS)
    with pytest.raises((EOFError, ConnectionError)):
        child.pipe.recv_bytes()
    return True


def descriptors(pid: int | None) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_fork_runs_the_function_with_its_arguments_and_is_a_child_of_the_nursery():
    with nursery() as place:
        child = place.fork("tells", "one", "", "zwei €\n")
        assert heard(child) == "one\n\nzwei €\n".encode()
        assert children(place.pid) == [child.pid]
        assert os.getsid(child.pid) == child.pid
        child.close()
        assert child.wait(DEADLINE_SECONDS) == 0


def test_what_the_nursery_has_imported_is_there_once():
    with nursery() as place, forked(place) as one, forked(place) as other:
        assert len({Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (place.pid, one.pid, other.pid)}) == 1


@pytest.mark.parametrize("status", [0, 1, 42])
def test_how_a_process_ends_is_told(status):
    with nursery() as place, forked(place) as child:
        assert (child.poll(), child.wait(0)) == (None, None)
        assert told(child, f"exit {status}") == child.poll() == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_the_signal_that_ends_a_process_is_told(number):
    with nursery() as place, forked(place) as child:
        os.kill(child.pid, number)
        assert child.wait(DEADLINE_SECONDS) == -number


def test_a_process_is_asked_to_end_and_made_to():
    with nursery() as place, forked(place) as kind, forked(place) as deaf:
        kind.terminate()
        assert kind.wait(DEADLINE_SECONDS) == -signal.SIGTERM
        deaf.pipe.send_bytes(b"deaf\nsay 1")
        heard(deaf)
        deaf.terminate()
        assert deaf.wait(0.1) is None
        deaf.kill()
        assert deaf.wait(DEADLINE_SECONDS) == -signal.SIGKILL


def test_whoever_has_ended_is_signalled_in_vain():
    with nursery() as place, forked(place) as child, forked(place) as other:
        assert told(child, "exit 3") == 3
        child.terminate()
        child.kill()
        other.pipe.send_bytes(b"say 1")
        assert (heard(other), child.poll(), other.poll()) == (b"1", 3, None)


def test_an_interrupt_does_not_end_the_nursery():
    with nursery() as place, forked(place):
        os.kill(place.pid, signal.SIGINT)
        with forked(place) as child:
            assert told(child, "exit 3") == 3


def test_a_process_that_breaks_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with nursery() as place:
        assert place.fork("takes", str(tmp_path / "nothing")).wait(DEADLINE_SECONDS) == 1
    assert "FileNotFoundError" in capfd.readouterr().err


def test_a_pipe_ends_with_its_process_while_others_live():
    with nursery() as place, forked(place) as one, forked(place) as other, forked(place) as last:
        for child in (other, one, last):
            os.kill(child.pid, signal.SIGKILL)
            assert ended(child)


def test_a_process_ends_with_its_pipe_while_others_live():
    with nursery() as place, forked(place) as one, forked(place) as other, forked(place):
        one.close()
        assert one.wait(DEADLINE_SECONDS) == 0
        assert other.poll() is None


def test_descriptors_do_not_pile_up():
    with nursery() as place, forked(place):
        here, there = descriptors(os.getpid()), descriptors(place.pid)
        for _ in range(20):
            with forked(place) as child:
                until(lambda child=child: child.pid is not None)
                # Its end of the pipe, and the standard streams.
                assert descriptors(child.pid) == 4
            del child
        until(lambda: descriptors(place.pid) == there)
        assert descriptors(os.getpid()) == here


def test_threads_fork_at_the_same_time():
    statuses: dict[int, int | None] = {}

    def fork(number: int) -> None:
        with forked(place) as child:
            start.wait()
            statuses[number] = told(child, f"exit {number}")

    start = threading.Barrier(8)
    with nursery() as place:
        threads = [threading.Thread(target=fork, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_SECONDS)
        assert children(place.pid) == []
    assert statuses == {number: number for number in range(8)}


def test_a_nursery_that_died_is_replaced_by_the_next_fork():
    with nursery() as place, forked(place):
        first = place.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: gone(first))
        with forked(place) as child:
            assert told(child, "exit 3") == 3
        assert place.pid != first
        assert gone(first)


def test_a_process_outlives_its_nursery_and_counts_as_killed_when_it_has_ended():
    with nursery() as place, forked(place) as child:
        pid = child.pid
        os.kill(place.pid, signal.SIGKILL)
        child.pipe.send_bytes(b"say 1")
        assert heard(child) == b"1"
        child.pipe.send_bytes(b"exit 3")
        assert ended(child)
        assert (child.wait(DEADLINE_SECONDS), child.pid) == (-signal.SIGKILL, pid)


@pytest.mark.parametrize("how", [Child.terminate, Child.kill])
@pytest.mark.parametrize("late", [False, True])
def test_a_process_without_its_nursery_ends_when_asked(how, late):
    with nursery() as place, forked(place) as child:
        os.kill(place.pid, signal.SIGKILL)
        if late:
            until(lambda: gone(place.pid))
        how(child)
        until(lambda: child.poll() is not None)
        assert ended(child)
        until(lambda: gone(child.pid))


def test_a_process_that_is_killed_before_it_is_there_never_is():
    with nursery([sys.executable, "-S", "-c", "import time; time.sleep(1_000)"]) as place:
        child = place.fork()
        assert child.poll() is None
        child.kill()
        assert (child.wait(), child.pid) == (-signal.SIGKILL, None)


def test_a_nursery_that_ends_before_it_is_up_takes_its_forks_along():
    with nursery([sys.executable, "-S", "-c", ""]) as place:
        child = place.fork()
        assert ended(child)
        assert (child.wait(DEADLINE_SECONDS), child.pid) == (-signal.SIGKILL, None)


def test_a_nursery_that_was_stopped_forks_no_more():
    with nursery() as place:
        pass
    assert gone(place.pid)
    with pytest.raises(OSError, match="the nursery was stopped"):
        place.fork()


SERVER = """
import sys
from tests.jobs.nurseries import nursery

place = nursery()
place.start()
forks = [place.fork() for _ in range(2)]
for child in forks:
    child.pipe.recv_bytes()
forks[0].pipe.send_bytes(b"deaf")
print(place.pid, *(child.pid for child in forks), flush=True)
sys.stdin.read()
"""


def test_nobody_outlives_a_server_that_is_killed():
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            pids = [int(pid) for pid in server.stdout.readline().split()]
            assert len(pids) == 3
            assert not any(gone(pid) for pid in pids)
        finally:
            server.kill()
        until(lambda: all(gone(pid) for pid in pids))
