"""A training process that trains nothing itself: its tasks go to a Ray actor, and what that says comes back.

`python -m service.cluster.relay ADDRESS GPUS` is the nursery of such processes. A server knows of no difference, and
what becomes of a cluster harms none of its threads.
"""

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayError

from service.cluster.connecting import NoCluster, connect
from service.cluster.trainer import Trainer
from service.codecs.message import pack, unpack
from service.jobs.forks import serve
from service.logs import configure

KEEP_SECONDS = 5.0  # for so long an actor without a task keeps its CPUs and GPUs, which others may wait for

log = logging.getLogger("service.cluster.relay")  # it runs as __main__


class Relay:
    """The server's end of a pipe on one side; on the other an actor, from a task until none has come for some time."""

    def __init__(self, pipe: Connection, cpus: int, gpus: float) -> None:
        self._pipe = pipe
        # Apart from one another: a node that goes takes as few of them along as can be.
        wanted = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD", "max_concurrency": 3}
        self._wanted = ray.remote(Trainer).options(**wanted)
        self._device = "cuda" if gpus else "cpu"
        self._actor: Any = None
        self._lock = threading.Lock()  # around having an actor, and a task for it
        self._begun: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def run(self) -> None:
        """Pass on what is said of one task after another; RayError when nobody is there any longer to say it."""
        while True:
            try:
                self._begun.get(timeout=KEEP_SECONDS)
            except Empty:
                self._let_go()
            else:
                done = False
                while not done:
                    heard, done = ray.get(self._actor.hear.remote())
                    for message in heard:
                        self._pipe.send_bytes(message)

    def _read(self) -> None:
        """Pass on what the server says; with its end of the pipe the process ends, and with that the actor."""
        try:
            while True:
                message = self._pipe.recv_bytes()
                if unpack(message)[0]["do"] == "train":
                    self._begin(message)
                elif self._actor is not None:
                    self._actor.tell.remote(message)
        except (EOFError, OSError):
            pass
        except BaseException:
            log.exception("a message of the server could not be passed on")
        finally:
            self.end(0)

    def _begin(self, request: bytes) -> None:
        with self._lock:
            if self._actor is None:
                self._actor = self._wanted.remote(self._device)
            self._actor.train.remote(request)
            self._begun.put(None)

    def _let_go(self) -> None:
        with self._lock:
            if self._actor is not None and self._begun.empty():
                ray.kill(self._actor)
                self._actor = None

    def end(self, status: int) -> None:
        """End the actor, and this process."""
        with suppress(Exception):  # Ray ends what has lost its driver
            if self._actor is not None:
                ray.kill(self._actor)
        os._exit(status)


def main(address: str, gpus: float, fd: int, device: str, threads: str) -> None:
    """Be a worker of the server at the other end of a pipe, until that end closes or the cluster is out of reach.

    `device` is the server's own: here GPUs are trained on where some are asked for.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its server ends it, once the job is stored where it stands
    try:
        connect(address)
    except NoCluster as error:
        log.error("%s", error)
        os._exit(1)
    pipe = Connection(fd)
    relay = Relay(pipe, int(threads), gpus)
    try:
        pipe.send_bytes(pack({"say": "ready"}))
        relay.run()
    except RayError as error:
        log.warning("what trained on Ray is gone: %s", str(error).partition("\n")[0])
    except OSError:  # the server's end has closed
        pass
    relay.end(1)


if __name__ == "__main__":
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Ray prints, and what is printed there is the server's answer
    configure("warning")
    serve(int(sys.argv[3]), partial(main, sys.argv[1], float(sys.argv[2])))
