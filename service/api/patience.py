"""For how long a connection waits for its client: to send a head, to send a body, to take its answer."""

from dataclasses import dataclass
from enum import Enum

MIN_BYTES_PER_SECOND = 64 * 1024  # of a body, beyond the time that each has


@dataclass(frozen=True)
class Patience:
    """The seconds that each part may take."""

    head_seconds: float
    body_seconds: float
    stall_seconds: float

    @property
    def look_seconds(self) -> float:
        """How often to look."""
        return min(1.0, self.head_seconds / 4, self.body_seconds / 4, self.stall_seconds / 4)


class Part(Enum):
    """What is awaited of a client."""

    NOTHING = 0
    HEAD = 1
    BODY = 2
    ANSWER = 3


class Waits:
    """What one connection waits for, and since when; times are those of the event loop."""

    __slots__ = ("_buffered", "_bytes", "_part", "_since", "_stalled")

    def __init__(self, now: float) -> None:
        self._part, self._since, self._bytes = Part.HEAD, now, 0
        self._buffered, self._stalled = 0, now

    def begin(self, part: Part, now: float) -> None:
        """Wait for a part from now on."""
        self._part, self._since, self._bytes = part, now, 0

    def rest(self, now: float) -> None:
        """Begin to wait anew for the same part."""
        self._since = now

    def came(self, size: int) -> None:
        """So many bytes of the body have come."""
        self._bytes += size

    def too_long(self, now: float, buffered: int, patience: Patience) -> Part:
        """What has taken too long, if anything.

        Args:
            buffered: the bytes of answers that the client has not taken yet.
        """
        if not buffered or buffered < self._buffered:
            self._stalled = now
        self._buffered = buffered
        if now - self._stalled > patience.stall_seconds:
            return Part.ANSWER
        allowed = {
            Part.HEAD: patience.head_seconds,
            Part.BODY: patience.body_seconds + self._bytes / MIN_BYTES_PER_SECOND,
        }
        return self._part if now - self._since > allowed.get(self._part, float("inf")) else Part.NOTHING
