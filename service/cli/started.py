"""A service that a command starts for itself, on a free port, and stops again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from service.cli.serve import READY

STOP_SECONDS = 30
ENDS = (signal.SIGTERM, signal.SIGHUP)
THEIRS = {"LORA_DATABASE_URL", "LORA_API_KEYS"}  # of whoever runs another


class NotStarted(Exception):
    """The service ended before it was ready."""

    def __init__(self, status: int) -> None:
        self.status = status


@contextmanager
def service(*, keep: bool) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a service that is started for this, and stopped again unless `keep`."""
    command = [sys.executable, "-P", "-m", "service", "serve", "--port", "0"]
    # A service that stays must not hold the terminal, or the pipe, that this command was given.
    errors = subprocess.DEVNULL if keep else None
    # Nor does it write into the database of whoever runs one, or ask for the keys of that.
    environment = {name: value for name, value in os.environ.items() if name not in THEIRS}
    process = subprocess.Popen(  # nosec B603  # every word of it stands above
        command,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,  # Ctrl-C is for this command, which ends it
        env=environment,
    )
    for each in ENDS:
        signal.signal(each, _leave)
    try:
        yield _url(process), process.pid
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _leave(number: int, frame: object) -> None:
    """End this command as its signal would, but not before the service that it has started."""
    raise SystemExit(128 + number)


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(READY):
            return line.removeprefix(READY).strip()
    raise NotStarted(process.wait())
