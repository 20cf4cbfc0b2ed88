"""A nursery's own side: forks off a process for each request of its server, and tells how each ended."""

import gc
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import NoReturn

log = logging.getLogger(__name__)

Run = Callable[..., None]


def serve(fd: int, run: Run) -> None:
    """Fork off processes that run `run` with their pipe's file descriptor and arguments, until the server is gone.

    A fork has no thread but the one that forks, so no other may be at work here.
    """
    gc.freeze()  # what is here by now is never looked at again, so that forks go on sharing it
    forks = Forks(socket.socket(fileno=fd), run)
    try:
        while True:
            forks.turn()
    except (EOFError, ConnectionError):  # the server is gone
        forks.end()


class Forks:
    """The processes that this one has forked off and not waited for, each with the reins that its server holds."""

    def __init__(self, control: socket.socket, run: Run) -> None:
        self._control = control
        self._run = run
        self._reins: dict[int, Connection] = {}  # by pid
        self._woken, self._waking = socket.socketpair()  # by the end of a child
        self._woken.setblocking(False)
        self._waking.setblocking(False)
        self._handlers = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda number, frame: None),
            # Its server ends it: a signal to all processes of the service must not end a job before that is told.
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        }
        signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)

    def turn(self) -> None:
        """Wait for something to do, and do it; EOFError or ConnectionError when the server is gone."""
        driven = {reins: pid for pid, reins in self._reins.items() if not reins.closed}
        ready = wait([self._control, self._woken, *driven])
        for reins in driven.keys() & set(ready):
            self._drive(driven[reins], reins)
        if self._woken in ready:
            self._woken.recv(4096)
            self._reap()
        if self._control in ready:
            self._fork()

    def end(self) -> None:
        """Kill them all, and wait until they are gone."""
        for pid in self._reins:
            os.kill(pid, signal.SIGKILL)
        for pid in self._reins:
            os.waitpid(pid, 0)

    def _drive(self, pid: int, reins: Connection) -> None:
        """Send a child, which may have ended but was not waited for, the signal that its server asks for."""
        try:
            number = int(reins.recv_bytes())
        except (EOFError, OSError):  # the server has let go of it
            reins.close()
            number = signal.SIGKILL
        os.kill(pid, number)

    def _reap(self) -> None:
        """Tell how the children ended that have."""
        for pid in list(self._reins):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with self._reins.pop(pid) as reins, suppress(OSError):  # nobody wants to know
                    reins.send_bytes(str(os.waitstatus_to_exitcode(status)).encode())

    def _fork(self) -> None:
        """Take in a request, and do it; where the system refuses, the server finds both pipes closed."""
        message, fds, _, _ = socket.recv_fds(self._control, 1, 2)
        if not message:
            raise EOFError
        if len(fds) < 2:  # of this process there may be no more
            log.error("a worker could not be forked off: its pipes could not be taken in")
            for fd in fds:
                os.close(fd)
            return
        pipe, held = fds
        os.set_inheritable(pipe, False)
        reins = Connection(held)
        try:
            arguments = json.loads(reins.recv_bytes())
            pid = os.fork()
        except (EOFError, OSError) as error:
            log.error("a worker could not be forked off: %s", error)
            reins.close()
        else:
            self._reins[pid] = reins
            if pid == 0:
                self._become(pipe, arguments)
            with suppress(OSError):  # the server is gone
                reins.send_bytes(str(pid).encode())
        finally:
            os.close(pipe)

    def _become(self, pipe: int, arguments: Sequence[str]) -> NoReturn:
        """Be the child: leave behind what is the parent's, run, and end."""
        status = 1
        try:
            os.setsid()  # which the system may weigh by itself
            self._leave()
            self._run(pipe, *arguments)
            status = 0
        except BaseException:
            log.exception("a worker broke")
        finally:
            os._exit(status)

    def _leave(self) -> None:
        """Close what is not the child's: a copy of an end of a pipe would hide that the other has closed."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for sock in (self._control, self._woken, self._waking):
            sock.close()
        for reins in self._reins.values():
            reins.close()
