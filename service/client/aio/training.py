"""Training: launch jobs, list them and forget them."""

from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic
from typing import Any

from pydantic import BaseModel

from service.client.aio.connection import AsyncConnection
from service.client.aio.job import AsyncJob
from service.client.calls import at, delete, get, ident, post
from service.schemas import training
from service.schemas.answers import Model


class AsyncJobPage(BaseModel):
    """Some jobs, and the cursor to the next of them."""

    items: list[AsyncJob]
    next_cursor: str | None


class AsyncTraining:
    """What can be done with jobs."""

    _connection: AsyncConnection

    async def train(self, model: str | Model, *, wait: float | None = None, **plan: Any) -> AsyncJob:
        """Launch a job; `plan` are the fields of `POST /models/{id}/train`, whose `data` may be a data set.

        With `wait` the job is given back when it has ended, or after so many seconds.
        """
        began = monotonic()
        call = post(at("models", model, "train"), plan).once()
        job = await self._connection.read(AsyncJob, call if wait is None else call.preferring(wait))
        if wait is not None and not job.ended:
            with suppress(TimeoutError):
                await job.wait(began + wait - monotonic(), progress=False)
        return job

    async def job(self, job: str | training.Job) -> AsyncJob:
        """The job as it is now."""
        return await self._connection.read(AsyncJob, get(at("jobs", job)))

    def jobs(self, model: str | Model | None = None, state: str | None = None) -> AsyncIterator[AsyncJob]:
        """Every job, or those of a model or in a state, oldest first."""
        return self._connection.pages(
            AsyncJobPage, "/jobs", model_id=None if model is None else ident(model), state=state
        )

    async def delete_job(self, job: str | training.Job) -> None:
        """Forget a job that has ended; the model it trained stays."""
        await self._connection.send(delete(at("jobs", job)))
