"""The hall, where the rooms meet."""

from service.engine.engine import Capacity, Engine

__all__ = ["Capacity", "Engine"]
