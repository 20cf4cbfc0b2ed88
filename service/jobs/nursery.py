"""A nursery: one process that imports what workers need, and forks off workers which share it and are there at once."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

STOP_SECONDS = 2.0

# Where the libraries under numpy and torch look, when they are imported, for how many threads they may use.
BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


# -P: a worker takes its modules from where the service is installed, not from the folder it is started in.
MODULE = (sys.executable, "-P", "-m")


class Child:
    """A process that a nursery has forked off, or is about to.

    Its messages pass through `pipe`. On the reins, the nursery tells its pid, and how it ended; the nursery is also
    who signals it, because only a parent knows that a pid is still that of its child.
    """

    def __init__(self, pipe: Connection, reins: Connection) -> None:
        self.pipe = pipe
        self._reins = reins
        self._lock = threading.RLock()  # around reading the reins, and the end of the pipe
        self._pid: int | None = None
        self._exit_code: int | None = None
        self._unwanted = False

    @property
    def pid(self) -> int | None:
        """None until it is forked off."""
        self.poll()
        return self._pid

    def poll(self) -> int | None:
        """The exit code (negative: the signal), or None while it lives; -9 where its nursery died before it."""
        with self._lock:
            while self._exit_code is None and self._reins.poll():
                self._hear()
            return self._exit_code

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code as of `poll`, or None when it still lives after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self._reins.poll(left)
        return self._exit_code

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; one that is not forked off yet counts as dead from now on, and will be."""
        self._signal(signal.SIGKILL)
        with self._lock:
            if self.pid is None:
                self._exit_code = -signal.SIGKILL

    def close(self) -> None:
        """Close the pipe."""
        with self._lock:
            self.pipe.close()

    def _hear(self) -> None:
        """Take in the next that the nursery tells: the pid, then the exit code."""
        try:
            number = int(self._reins.recv_bytes())
        except (EOFError, OSError):
            self._exit_code = -signal.SIGKILL
            if self._unwanted:  # by a signal that the nursery did not live to pass on
                self._hang_up()
        else:
            if self._pid is None:
                self._pid = number
            else:
                self._exit_code = number

    def _signal(self, number: int) -> None:
        self._unwanted = True
        try:
            self._reins.send_bytes(str(number).encode())
        except OSError:  # the child has been waited for, or has lost its nursery
            self._hang_up()

    def _hang_up(self) -> None:
        """End the pipe on both sides, whoever is reading from it: a worker ends with its pipe."""
        with self._lock, suppress(OSError):  # closed already
            line = socket.socket(fileno=self.pipe.fileno())
            try:
                line.shutdown(socket.SHUT_RDWR)
            finally:
                line.detach()


class Nursery:
    """A process that forks off others when asked to; it is started anew when it has died. Used in a `with` it ends.

    Its command gets one end of a socket as a file descriptor, the last argument, and hands it to `forks.serve`.
    `environment` is added to that of this process.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._environment = dict(environment or {})
        self._lock = threading.Lock()  # around all of the next
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._stopped = False

    def __enter__(self) -> "Nursery":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process unless it runs; returns before it has imported anything."""
        with self._lock:
            self._running()

    def fork(self, *arguments: str) -> Child:
        """A new process that runs the nursery's function with its end of a pipe and the arguments.

        Returns before it is there.

        Raises:
            OSError: where no nursery could be started, or it was stopped.
        """
        pipe, theirs = Pipe()
        reins, held = Pipe()
        reins.send_bytes(json.dumps(arguments).encode())
        with theirs, held:
            self._hand_over([theirs.fileno(), held.fileno()])
        return Child(pipe, reins)

    def stop(self) -> None:
        """End the process, whose children have ended or are about to; it forks off nothing more."""
        with self._lock:
            self._stopped = True
            self._end()

    def _hand_over(self, fds: Sequence[int]) -> None:
        with self._lock:
            try:
                socket.send_fds(self._running(), [b"."], fds)
            except ConnectionError:  # it has just died
                self._end()
                socket.send_fds(self._running(), [b"."], fds)

    def _running(self) -> socket.socket:
        """The socket to a process that runs as far as is known; whoever calls holds the lock."""
        if self._stopped:
            raise OSError("the nursery was stopped")
        if self._control is None or self._process is None or self._process.poll() is not None:
            self._end()
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = self._launched(theirs.fileno())
        return self._control

    def _launched(self, fd: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # nosec B603  # the command is the service's own
            [*self._command, str(fd)],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C in the terminal does not reach it: its server ends it
            env={**os.environ, **self._environment},
        )

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def of_workers(threads: int) -> Nursery:
    """The nursery of processes that train, each with so many threads."""
    return Nursery([*MODULE, "service.worker"], dict.fromkeys(BLAS_THREADS, str(threads)))


def of_relays(address: str, gpus: float) -> Nursery:
    """The nursery of processes that have Ray train, with so many GPUs each, on the cluster at an address."""
    return Nursery([*MODULE, "service.cluster.relay", address, str(gpus)])
