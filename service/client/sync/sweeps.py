"""Sweeps: many settings tried at once."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.client.calls import at, delete, get, post
from service.client.sync.connection import Connection
from service.schemas.training import Sweep, SweepPage


class Sweeps:
    """What can be done with sweeps."""

    _connection: Connection

    def create_sweep(
        self, *, model: Mapping[str, Any], over: Mapping[str, Any], train: Mapping[str, Any] | None = None
    ) -> Sweep:
        """A sweep of models and trainings that have the settings `model` and `train` in common, and differ by `over`.

        `over` has a list of values for each setting that is tried, such as `{"rank": [1, 2, 4]}`.
        """
        return self._connection.read(
            Sweep, post("/sweeps", {"model": model, "over": over, "train": train or {}}).once()
        )

    def sweep(self, sweep: str | Sweep) -> Sweep:
        """The sweep as it is now, with its leaderboard."""
        return self._connection.read(Sweep, get(at("sweeps", sweep)))

    def cancel_sweep(self, sweep: str | Sweep) -> Sweep:
        """The sweep, whose jobs are cancelled unless they had ended; its models stay."""
        return self._connection.read(Sweep, post(at("sweeps", sweep, "cancel"), {}).once())

    def sweeps(self) -> Iterator[Sweep]:
        """Every sweep, oldest first."""
        return self._connection.pages(SweepPage, "/sweeps")

    def delete_sweep(self, sweep: str | Sweep, *, keep: int = 1, force: bool = False) -> None:
        """Delete a sweep and its models but for the best ones, of which it `keep`s so many."""
        self._connection.send(delete(at("sweeps", sweep), keep=keep, force=force))
