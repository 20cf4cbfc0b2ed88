"""Worker processes: started once, watched, and replaced when they die."""

import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Generic, Protocol, TypeVar

from service.jobs.nursery import Child, Nursery

log = logging.getLogger(__name__)

IDLE_CHECK_SECONDS = 0.2
RESTART_SECONDS_MAX = 5.0
FAILED_STARTS = 3
STOP_SECONDS = 2.0


class Task(Protocol):
    """One piece of work for a worker, seen from the side that gives it out; it may serve several jobs."""

    @property
    def job_ids(self) -> Collection[str]: ...

    def begin(self) -> bytes | memoryview | None:
        """The message that tells a worker what to do; None when there is nothing left to do."""

    def heard(self, message: bytes) -> bool:
        """Take in what the worker says; True when that was its last word on this task."""

    def lost(self, exit_code: int) -> None:
        """The worker died with this status (negative: the signal) before its last word."""

    def broke(self, error: Exception) -> None:
        """This side of the pipe failed at the task; its process, which may be in the middle of it, is replaced."""

    def ended(self) -> None:
        """No worker holds the task any longer, however it ended."""


T = TypeVar("T", bound=Task)


class Source(Protocol[T]):
    """Where the workers' tasks come from."""

    def take(self, timeout: float) -> T | None:
        """The next task, or None when there is none within `timeout` seconds."""

    def put_back(self, entry: T) -> None:
        """Take back a task that was not begun."""


class Worker(Generic[T]):
    """One process behind a pipe, and the thread that feeds it; a dead process is replaced by a new one.

    Messages are bytes, never pickles. The process says something (anything) when it is ready, and ends when the pipe
    closes.
    """

    def __init__(self, nursery: Nursery, source: Source[T], arguments: Sequence[str]) -> None:
        self._nursery = nursery
        self._source = source
        self._arguments = arguments
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # around the next three; a request, which may take long, is sent without it
        self._job_ids: Collection[str] = ()
        self._asked = False  # the process has the task's request
        self._untold: list[bytes | memoryview] = []
        self._pipe: Connection | None = None
        self._child: Child | None = None
        self.ready = self.was_ready = False
        self.starts = self.failed_starts = 0
        self._thread = threading.Thread(target=self._live, name="lora-worker", daemon=True)

    def start(self) -> None:
        """Start the process, and the thread that feeds it."""
        self._thread.start()

    def part(self) -> None:
        """End the process, without waiting for it."""
        self._stopping.set()
        if self._child is not None:
            self._child.kill()

    def stop(self) -> None:
        """End the process, and wait for it."""
        self.part()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)
        if self._child is not None:
            self._child.wait(STOP_SECONDS)

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def tell(self, message: bytes | memoryview, job_id: str | None = None) -> None:
        """Send a short message about a job, or any, if this worker has it: at once, or right behind the request."""
        with self._lock:
            if self._job_ids if job_id is None else job_id in self._job_ids:
                self._untold.append(message)
                self._send_untold()

    def _send_untold(self) -> None:
        """Send what waits to be told, once the request is out; whoever calls holds the lock."""
        if self._asked and self._pipe is not None:
            with suppress(OSError):  # the process has just died, which its thread is about to notice
                while self._untold:
                    self._pipe.send_bytes(self._untold.pop(0))

    def _live(self) -> None:
        """Keep a process running, and start them more slowly each time one ends before it is ready."""
        while not self._stopping.is_set():
            self.ready = False
            try:
                with self._spawned() as pipe:
                    self._serve(pipe)
            except (EOFError, OSError):  # the process is gone, or could not be started
                pass
            except Exception:
                log.exception("a worker's task broke on the server's side")
            if not self.ready:
                self.failed_starts += 1
                self._stopping.wait(pause_seconds(self.failed_starts))

    @contextmanager
    def _spawned(self) -> Iterator[Connection]:
        """Our end of the pipe to a new process, which is gone at the end."""
        self._child = self._nursery.fork(*self._arguments)
        if self._stopping.is_set():  # by a `stop` that came too early to see this process
            self._child.kill()
        self.starts += 1
        self._pipe = self._child.pipe
        try:
            yield self._pipe
        finally:
            self._pipe = None
            self._exit_code()
            self._child.close()

    def _serve(self, pipe: Connection) -> None:
        """Feed the process for as long as it lives; EOFError or OSError when it does not."""
        while not pipe.poll(IDLE_CHECK_SECONDS):  # the nursery may still have much to import
            if self._stopping.is_set():
                return
        pipe.recv_bytes()
        self.ready = self.was_ready = True
        self.failed_starts = 0
        while not self._stopping.is_set():
            if pipe.poll():  # an idle worker says nothing, so this is its end
                raise EOFError
            task = self._source.take(IDLE_CHECK_SECONDS)
            if task is not None:
                if pipe.poll():  # it ended while idle, so the task has not met it
                    self._source.put_back(task)
                    raise EOFError
                try:
                    self._run(task, pipe)
                finally:
                    task.ended()

    def _run(self, task: Task, pipe: Connection) -> None:
        with self._lock:
            self._job_ids = task.job_ids  # from here on, what is told about the task reaches the process
        try:
            request = task.begin()
            if request is None:
                return
            pipe.send_bytes(request)
            del request  # as large as the layer and its data
            with self._lock:
                self._asked = True
                self._send_untold()
            while not task.heard(pipe.recv_bytes()):
                pass
        except (EOFError, OSError):
            task.lost(self._exit_code())
            raise
        except Exception as error:
            task.broke(error)
            raise
        finally:
            with self._lock:
                self._job_ids, self._asked, self._untold = (), False, []

    def _exit_code(self) -> int:
        assert self._child is not None
        self._child.kill()  # a process without its pipe is of no use, should it still live
        exit_code = self._child.wait()
        assert exit_code is not None
        return exit_code


def pause_seconds(failed_starts: int) -> float:
    """How long to wait for the next start after so many that failed."""
    return min(0.1 * 2.0 ** min(failed_starts, 10), RESTART_SECONDS_MAX)


class Workers(Generic[T]):
    """A fixed number of workers on one source of tasks; the nursery's function gets the `arguments`."""

    def __init__(self, nursery: Nursery, count: int, source: Source[T], arguments: Sequence[str] = ()) -> None:
        self._workers = [Worker(nursery, source, arguments) for _ in range(count)]

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        for worker in self._workers:  # all of them end at the same time
            worker.part()
        for worker in self._workers:
            worker.stop()

    def tell(self, job_id: str, message: bytes | memoryview) -> None:
        """Send a message to the worker that has the job, if one has."""
        for worker in self._workers:
            worker.tell(message, job_id)

    def tell_all(self, message: bytes | memoryview) -> None:
        """Send a message to every worker that has a task."""
        for worker in self._workers:
            worker.tell(message)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers if worker.pid is not None]

    @property
    def ready(self) -> int:
        """How many are up and have said so."""
        return sum(worker.ready for worker in self._workers)

    @property
    def restarts(self) -> int:
        """How many died and were replaced."""
        return sum(max(0, worker.starts - 1) for worker in self._workers)

    @property
    def started(self) -> bool:
        """Whether each worker has been ready once, whatever became of it since."""
        return all(worker.was_ready for worker in self._workers)

    @property
    def failing(self) -> bool:
        """Whether every worker has died several times in a row before it got ready."""
        return all(worker.failed_starts >= FAILED_STARTS for worker in self._workers)
