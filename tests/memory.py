"""How much memory a stretch of a test takes."""

from collections.abc import Callable
from pathlib import Path

import pytest


def peak_growth(process: int | str = "self") -> Callable[[], int]:
    """A function that says how many bytes more than now a process, by default this one, has had at most since."""
    try:
        Path(f"/proc/{process}/clear_refs").write_text("5")  # resets the peak
    except OSError as error:
        pytest.skip(f"the peak of a process's memory cannot be reset: {error}")
    before = _bytes("VmHWM", process)
    return lambda: _bytes("VmHWM", process) - before


def resident(process: int | str = "self") -> int:
    """The bytes of memory that a process, by default this one, has now."""
    return _bytes("VmRSS", process)


def _bytes(name: str, process: int | str) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status[name].removesuffix("kB")) * 1024
