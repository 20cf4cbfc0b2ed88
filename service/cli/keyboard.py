"""Single keys of a terminal, without waiting for the end of a line."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def raw_keys() -> Iterator[None]:
    """Let keys come one by one and unseen; afterwards the terminal is as it was. Elsewhere it changes nothing."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def pressed(seconds: float) -> str:
    """The keys that are pressed within so many seconds, as soon as one is; none is the empty text."""
    if not sys.stdin.isatty():
        select.select([], [], [], seconds)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 64).decode(errors="ignore") if ready else ""
