"""How much memory a stretch of a test takes."""

from collections.abc import Callable
from pathlib import Path

import pytest


def peak_growth() -> Callable[[], int]:
    """A function that says how many bytes more than now this process has had at most since."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except OSError as error:
        pytest.skip(f"the peak of this process's memory cannot be reset: {error}")
    before = _peak()
    return lambda: _peak() - before


def resident(pid: int | str = "self") -> int:
    """The bytes of memory that a process has right now."""
    return _told(pid, "VmRSS")


def _peak() -> int:
    return _told("self", "VmHWM")


def _told(pid: int | str, name: str) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status[name].removesuffix("kB")) * 1024
