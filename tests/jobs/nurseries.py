"""Nurseries of the small worker process, which need no torch."""

import sys
from pathlib import Path

from service.jobs.nursery import Nursery

ECHO = [sys.executable, "-S", "-m", "tests.jobs.echo"]
ROOT = str(Path(__file__).parents[2])


def nursery(command: list[str] = ECHO, **environment: str) -> Nursery:
    """A nursery that is not started yet; `environment` is added to that of its processes."""
    return Nursery(command, {"PYTHONPATH": ROOT, **environment})
