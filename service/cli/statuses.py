"""How a command ends: its exit status, and the line that says why."""

import sys
from enum import IntEnum


class Status(IntEnum):
    """What a command tells whoever started it."""

    OK = 0
    FAILED = 1  # a job, or something inside
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    INTERRUPTED = 130


class Refused(Exception):
    """What was asked for cannot be done as it was said; the text is one line with what to do instead."""


def tell(said: str) -> None:
    """Say one line to whoever looks on, beside the result."""
    print(f"lora: {' '.join(said.split())}", file=sys.stderr)
