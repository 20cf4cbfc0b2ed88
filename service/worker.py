"""One training process: takes a task from its pipe, trains, and says how it goes.

`python -m service.worker` is the nursery of such processes.
"""

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from numpy.typing import NDArray

from service.codecs.message import pack, unpack
from service.jobs.forks import serve
from service.logs import configure
from service.task import Message, Orders, perform, warm_up

NICENESS = 10

log = logging.getLogger("service.worker")  # it runs as __main__


class Inbox:
    """What the server says, read by a thread of its own so that a cancel arrives while a task runs.

    When the server's end closes, however that happened, the process has no one to work for and ends. It ends as well
    when it cannot take in what the server says: nobody would ever learn of the task.
    """

    def __init__(self, pipe: Connection) -> None:
        self.orders = Orders()
        self._pipe = pipe
        self._tasks: SimpleQueue[Message] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        status = 0
        try:
            while True:
                header, tensors = unpack(self._pipe.recv_bytes())
                if not self.orders.hear(header):
                    self._tasks.put((header, tensors))
                    del tensors  # else they stay here until the next message
        except (EOFError, OSError):
            pass
        except BaseException:
            log.exception("a message of the server could not be read")
            status = 1
        finally:
            os._exit(status)

    def next(self) -> Message:
        """The next task, when there is one."""
        return self._tasks.get()


def give_way() -> None:
    """Leave the cores to the server wherever both want one.

    Linux may weigh sessions against each other first (sched(7), autogroup), and a worker has one of its own: nice alone
    would then leave it half of a core that the server needs.
    """
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # not Linux, or without autogroups
            Path("/proc/self/autogroup").write_text(str(NICENESS))


def main(fd: int, device: str, threads: str) -> None:
    """Work for the server at the other end of a pipe until that end closes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its server ends it, once the job is stored where it stands
    give_way()
    torch.set_num_threads(int(threads))
    pipe = Connection(fd)
    inbox = Inbox(pipe)
    warm_up()

    def say(value: dict[str, Any], arrays: dict[str, NDArray[Any]] | None = None) -> None:
        with suppress(OSError):  # the server's end has closed, so the inbox is about to end this process
            pipe.send_bytes(pack(value, arrays))

    say({"say": "ready"})
    while True:
        perform(inbox.next(), device, inbox.orders.cancelled, say, lambda: inbox.orders.pausing)


if __name__ == "__main__":
    configure("warning")
    serve(int(sys.argv[1]), main)
