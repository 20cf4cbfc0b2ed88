"""The names the service gives to things: a prefix and a ULID, which sorts by creation."""

import re
import threading
from collections.abc import Iterable

from ulid import ULID

ULID_PATTERN = "[0-9A-HJKMNP-TV-Z]{26}"
ANY_ID = f"^([a-z]{{3}}_{ULID_PATTERN}|base_[0-9a-f]{{64}})$"
MODEL_ID = f"^mdl_{ULID_PATTERN}$"
SWEEP_ID = f"^swp_{ULID_PATTERN}$"
JOB_ID = f"^job_{ULID_PATTERN}$"
DATASET_ID = f"^dat_{ULID_PATTERN}$"
BASE_ID = "^base_[0-9a-f]{64}$"


class Mint:
    """Makes ids of one prefix, each greater than the one before, whatever the clock does.

    Args:
        known: ids that there are already; those it makes are greater.
    """

    def __init__(self, prefix: str, known: Iterable[str] = ()) -> None:
        self._prefix = prefix
        newest = max(known, default=None)
        self._last = 0 if newest is None else self._number(newest)
        self._lock = threading.Lock()

    def saw(self, made: str) -> None:
        """Make none that is not greater than this one, which somebody else made."""
        with self._lock:
            self._last = max(self._last, self._number(made))

    def __call__(self) -> str:
        with self._lock:
            self._last = max(self._last + 1, int(ULID()))
            return f"{self._prefix}_{ULID.from_int(self._last)}"

    def _number(self, made: str) -> int:
        return int(ULID.from_str(made.removeprefix(f"{self._prefix}_")))


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text has the form of an id; a trailing newline has not."""
    return re.fullmatch(pattern, text) is not None
