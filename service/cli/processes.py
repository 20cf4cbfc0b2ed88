"""Several processes that serve on one port, started, replaced when they die, and stopped together."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from service.settings import PREFIX, Settings, default_workers

LOOK_SECONDS = 0.2
RESTART_SECONDS = 1.0  # at least from one start of a process to the next

log = logging.getLogger(__name__)


@dataclass
class Place:
    """A process, and the socket on which it serves: that outlives it, so whoever waits there waits for the next."""

    listening: socket.socket
    process: subprocess.Popen[str]
    began: float


class Processes:
    """The processes of a service, each of which is a `lora serve` on a socket that it is handed."""

    def __init__(self, settings: Settings) -> None:
        self._leaving = False
        sockets = _listening(settings)
        port = sockets[0].getsockname()[1]
        own = {"PROCESSES": 1, "HOST": settings.host, "PORT": port, "INSECURE": int(settings.insecure)}
        shared_out = {"WORKERS": max(1, default_workers() // settings.processes)}
        given = {name: value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
        named = {**_prefixed(shared_out), **given, **_prefixed(own)}
        self._environment = {**os.environ, **named}
        self._places = [Place(each, self._started(each), time.monotonic()) for each in sockets]

    def ready(self) -> Sequence[dict[str, Any]]:
        """What each process says when it is ready; none where one of them ended before."""
        lines = [place.process.stdout.readline() for place in self._places if place.process.stdout is not None]
        return [json.loads(line) for line in lines] if all(lines) else []

    def run(self) -> None:
        """Replace what dies, until told to leave; then wait for all to end."""
        while not self._leaving:
            for place in self._places:
                if place.process.poll() is not None and time.monotonic() - place.began > RESTART_SECONDS:
                    log.warning(
                        "a process that served ended with status %s; another takes its place", place.process.returncode
                    )
                    place.process, place.began = self._started(place.listening), time.monotonic()
            time.sleep(LOOK_SECONDS)
        for place in self._places:
            place.process.wait()

    def leave(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Ask all to finish what is under way; a second time, to leave at once."""
        self._leaving = True
        for place in self._places:
            if place.process.poll() is None:
                place.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End what still runs, and listen no longer."""
        for place in self._places:
            if place.process.poll() is None:
                place.process.kill()
            place.process.wait()
            if place.process.stdout is not None:
                place.process.stdout.close()
            place.listening.close()

    def _started(self, listening: socket.socket) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "service", "serve", "--json", "--fd", str(listening.fileno())]
        return subprocess.Popen(  # nosec B603  # every word of it stands above
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
            pass_fds=[listening.fileno()],
            start_new_session=True,  # Ctrl-C is for this process, which passes it on
        )


@contextmanager
def processes(settings: Settings) -> Iterator[Processes]:
    """The processes that the settings ask for, started; signals are passed on to them, and they end with this."""
    with ExitStack() as stack:
        started = Processes(settings)
        stack.callback(started.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, started.leave))
        yield started


def _listening(settings: Settings) -> list[socket.socket]:
    """A socket for each process on one port, among which the kernel shares out connections."""
    family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    sockets: list[socket.socket] = []
    for _ in range(settings.processes):
        port = sockets[0].getsockname()[1] if sockets else settings.port
        sockets.append(socket.create_server((settings.host, port), family=family, reuse_port=True, backlog=2_048))
    return sockets


def _prefixed(values: Mapping[str, object]) -> dict[str, str]:
    return {f"{PREFIX}{name}": str(value) for name, value in values.items()}
