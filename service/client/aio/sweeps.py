"""Sweeps: many settings tried at once."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from service.client.aio.connection import AsyncConnection
from service.client.calls import at, delete, get, post
from service.schemas.training import Sweep, SweepPage


class AsyncSweeps:
    """What can be done with sweeps."""

    _connection: AsyncConnection

    async def create_sweep(
        self, *, model: Mapping[str, Any], over: Mapping[str, Any], train: Mapping[str, Any] | None = None
    ) -> Sweep:
        """A sweep of models and trainings that have the settings `model` and `train` in common, and differ by `over`.

        `over` has a list of values for each setting that is tried, such as `{"rank": [1, 2, 4]}`.
        """
        return await self._connection.read(
            Sweep, post("/sweeps", {"model": model, "over": over, "train": train or {}}).once()
        )

    async def sweep(self, sweep: str | Sweep) -> Sweep:
        """The sweep as it is now, with its leaderboard."""
        return await self._connection.read(Sweep, get(at("sweeps", sweep)))

    async def cancel_sweep(self, sweep: str | Sweep) -> Sweep:
        """The sweep, whose jobs are cancelled unless they had ended; its models stay."""
        return await self._connection.read(Sweep, post(at("sweeps", sweep, "cancel"), {}).once())

    def sweeps(self) -> AsyncIterator[Sweep]:
        """Every sweep, oldest first."""
        return self._connection.pages(SweepPage, "/sweeps")

    async def delete_sweep(self, sweep: str | Sweep, *, keep: int = 1, force: bool = False) -> None:
        """Delete a sweep and its models but for the best ones, of which it `keep`s so many."""
        await self._connection.send(delete(at("sweeps", sweep), keep=keep, force=force))
