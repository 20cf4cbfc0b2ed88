"""Training: launch jobs, list them and forget them."""

from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

from pydantic import BaseModel

from service.client.calls import at, delete, get, ident, post
from service.client.sync.connection import Connection
from service.client.sync.job import Job
from service.schemas import training
from service.schemas.answers import Model


class JobPage(BaseModel):
    """Some jobs, and the cursor to the next of them."""

    items: list[Job]
    next_cursor: str | None


class Training:
    """What can be done with jobs."""

    _connection: Connection

    def train(self, model: str | Model, *, wait: float | None = None, **plan: Any) -> Job:
        """Launch a job; `plan` are the fields of `POST /models/{id}/train`, whose `data` may be a data set.

        With `wait` the job is given back when it has ended, or after so many seconds.
        """
        began = monotonic()
        call = post(at("models", model, "train"), plan).once()
        job = self._connection.read(Job, call if wait is None else call.preferring(wait))
        if wait is not None and not job.ended:
            with suppress(TimeoutError):
                job.wait(began + wait - monotonic(), progress=False)
        return job

    def job(self, job: str | training.Job) -> Job:
        """The job as it is now."""
        return self._connection.read(Job, get(at("jobs", job)))

    def jobs(self, model: str | Model | None = None, state: str | None = None) -> Iterator[Job]:
        """Every job, or those of a model or in a state, oldest first."""
        return self._connection.pages(JobPage, "/jobs", model_id=None if model is None else ident(model), state=state)

    def delete_job(self, job: str | training.Job) -> None:
        """Forget a job that has ended; the model it trained stays."""
        self._connection.send(delete(at("jobs", job)))
