"""How the learning rate goes over a run: each schedule a function of what is done of it."""

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}


def factor(schedule: str, step: int, steps: int, warmup: float) -> float:
    """What the learning rate is multiplied by at a step, counted from 0, of `steps`.

    It rises evenly over the first `warmup` steps, whose last has all of it; what follows goes by the schedule, of
    which the step after the last one would see the end.
    """
    if step + 1 <= warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule]((step - warmup) / (steps - warmup) if step > warmup else 0.0)
