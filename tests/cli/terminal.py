"""The `lora` command as tests call it: within this process, as a process of its own, and on a terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from typer.testing import CliRunner, Result

from service.cli.app import app
from tests.running import DEADLINE_SECONDS

COMMAND = [sys.executable, "-m", "service"]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


def lora(*words: object, url: str | None = None, given: bytes | None = None, **environment: str) -> Result:
    """What a command does within this process; `url` is where its service is, `given` its standard input."""
    env = environment if url is None else {"LORA_URL": url, **environment}
    return CliRunner().invoke(app, list(map(str, words)), input=given, env=env)


def done(*words: object, url: str, given: bytes | None = None) -> str:
    """What a command prints that ends well, without its last end of line."""
    ended = lora(*words, url=url, given=given)
    assert ended.exit_code == 0, ended.stderr
    return ended.stdout.removesuffix("\n")


def process(*words: object, **environment: str) -> "subprocess.Popen[str]":
    """A command as a process of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


class Terminal:
    """A process on a terminal of its own, and all that it has written there."""

    def __init__(self, process: "subprocess.Popen[bytes]", end: int) -> None:
        self.process, self.end, self.written = process, end, ""

    def shows(self, pattern: str) -> str:
        """What the terminal shows, once that has come; fails at the deadline."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, f"{pattern!r} does not come: {self.seen[-2000:]!r}"
            if not self._read(0.1) and self.process.poll() is not None and not self._read(0.1):
                assert re.search(pattern, self.seen), self.seen[-2000:]
        return self.seen

    @property
    def seen(self) -> str:
        """What was written, without what moves the cursor and colours the text."""
        return CONTROL.sub("", self.written)

    def press(self, keys: str) -> None:
        """Type on the terminal."""
        os.write(self.end, keys.encode())

    def ended(self) -> int:
        """The status of the process, which must end in time."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen[-2000:]
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.wait()

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.end], [], [], seconds)
        with suppress(OSError):  # nobody has the other end open any longer
            if ready and (some := os.read(self.end, 65_536)):
                self.written += some.decode(errors="replace")
                return True
        return False


@contextmanager
def on_terminal(*words: object, **environment: str) -> Iterator[Terminal]:
    """A command on a terminal of 120 columns; killed at the end if it still runs."""
    end, other = pty.openpty()
    env: dict[str, Any] = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", **environment}
    started = subprocess.Popen(
        [*COMMAND, *map(str, words)], stdin=other, stdout=other, stderr=other, env=env, start_new_session=True
    )
    os.close(other)
    try:
        yield Terminal(started, end)
    finally:
        started.kill()
        started.wait()
        os.close(end)
