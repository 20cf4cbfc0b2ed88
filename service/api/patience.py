"""For how long a connection waits for its client: to send a head or a body, to take its answer, to ask again."""

from dataclasses import dataclass
from enum import Enum

MIN_BYTES_PER_SECOND = 64 * 1024  # of a body, beyond the time that each has
REST_SECONDS = 5.0


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
    NEXT = 4  # request, when all have been answered


@dataclass(frozen=True)
class Stage:
    """Where a connection stands: the part that it waits for, of its how many-th request, and what came of the body."""

    part: Part
    turn: int
    body_bytes: int = 0


class Waits:
    """Since when one connection waits for what it waits for, as found by looking now and then.

    So a request that is quick costs nothing here, and time counts from the first look that finds a part awaited.
    """

    def __init__(self, now: float, stage: Stage) -> None:
        self._stage, self._since = stage, now
        self._buffered, self._stalled = 0, now

    def rest(self, now: float) -> None:
        """Begin to wait anew for the same part."""
        self._since = now

    def too_long(self, now: float, stage: Stage, buffered: int, patience: Patience) -> Part:
        """What has taken too long, if anything.

        Args:
            now: by the clock of the event loop.
            buffered: the bytes of answers that the client has not taken yet.
        """
        if (stage.turn, stage.part) != (self._stage.turn, self._stage.part):
            self._stage, self._since = stage, now
        if not buffered or buffered < self._buffered:
            self._stalled = now
        self._buffered = buffered
        if now - self._stalled > patience.stall_seconds:
            return Part.ANSWER
        allowed = {
            Part.HEAD: patience.head_seconds,
            Part.BODY: patience.body_seconds + stage.body_bytes / MIN_BYTES_PER_SECOND,
            Part.NEXT: REST_SECONDS,
        }
        return stage.part if now - self._since > allowed.get(stage.part, float("inf")) else Part.NOTHING
