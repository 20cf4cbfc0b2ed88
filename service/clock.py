"""The time, twice: the wall clock for people, the monotonic one for durations."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Instant:
    """A moment: UTC on the wall clock, and seconds on a clock that never jumps."""

    wall: datetime
    seconds: float


def instant() -> Instant:
    """This moment."""
    return Instant(datetime.now(UTC), time.monotonic())


_BEGAN = instant()


def steady() -> datetime:
    """The wall clock as it was when the process began, moved on by the one that never jumps: for what lapses."""
    return _BEGAN.wall + timedelta(seconds=time.monotonic() - _BEGAN.seconds)
