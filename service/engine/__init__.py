"""The hall, where the rooms meet."""

from service.engine.capacity import Capacity
from service.engine.engine import Engine

__all__ = ["Capacity", "Engine"]
