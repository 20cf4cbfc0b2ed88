"""What a combined model was made of, as it is remembered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Member:
    """A model in a sum: the version that was taken, and how much it counts."""

    model_id: str
    version: int
    weight: float


@dataclass(frozen=True)
class Combined:
    """The sum that version 0 of a model is.

    Args:
        rank: ranks of the members together, or min(in, out) where one has a magnitude: nothing is left out at so many.
        error: ‖Σ - ΔW‖_F of what was left out, but for rounding to float32; and that over ‖Σ‖_F.
    """

    members: tuple[Member, ...]
    rank: int
    error: float = 0.0
    relative_error: float = 0.0

    @classmethod
    def of(cls, facts: Mapping[str, Any] | None) -> "Combined | None":
        """What the facts of a model tell, where they tell of a sum."""
        if facts is None:
            return None
        return cls(**{**facts, "members": tuple(Member(**each) for each in facts["members"])})
