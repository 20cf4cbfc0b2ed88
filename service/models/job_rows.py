"""Jobs, their rows and their training states, as changes to the store, and back."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import orjson

from service.clock import Instant
from service.codecs.message import Arrays
from service.codecs.safetensors import dump, read
from service.jobs.job import Change as Moved
from service.jobs.job import Job
from service.jobs.state import State as JobState
from service.models.rows import dumps
from service.models.store import Change, Drop, Put, Store
from service.training.plan import as_dict, from_dict
from service.training.state import State, as_parts, from_parts

CURVES = "curves."
TIMES = ("created_at", "started_at", "finished_at")
FACTS = (
    "epochs",
    "duration_seconds",
    "model_version",
    "reason",
    "detail",
    "metrics",
    "together",
    "owner",
    "group",
    "state_bytes",
    "epoch",
)


def changed(job: Job) -> Iterator[Change]:
    """A job as it is now; the curves of one that has not ended are in its state."""
    facts = {name: getattr(job, name) for name in (*TIMES, *FACTS)}
    history = [(str(move.state), move.epoch, move.reason) for move in job.history]
    curves = {name: np.array(job.curve(name)) for name in job.curves} if job.state.terminal else {}
    columns = {
        "id": job.id,
        "model_id": job.model_id,
        "given_id": None if job.state.terminal else job.given_id,
        "ended": job.state.terminal,
        "facts": dumps({**facts, "plan": as_dict(job.plan), "history": history}),
        "curves": dump(curves),
    }
    yield Put("jobs", columns)
    if job.state.terminal and job.given_id is not None:
        yield Drop("given", {"id": job.given_id}, needed=("jobs", {"given_id": job.given_id}))


def accepted(jobs: Sequence[Job], given: Arrays) -> Iterator[Change]:
    """New jobs, and the rows that came with them where there are some."""
    if jobs[0].given_id is not None:
        yield Put("given", {"id": jobs[0].given_id, "tensors": dump(given)})
    for job in jobs:
        yield from changed(job)


def ended(job: Job) -> Iterator[Change]:
    """A job that has ended without a version of its own: nothing goes on from it."""
    yield from changed(job)
    yield from stateless([job.id])


def reached(job_id: str, state: State) -> Iterator[Change]:
    """Where a job stands, or where it stopped."""
    facts, arrays = as_parts(state)
    yield Put("states", {"job_id": job_id, "facts": dumps(facts), "tensors": dump(arrays)})


def stateless(job_ids: Sequence[str]) -> Iterator[Change]:
    """Jobs whose states are no longer kept."""
    for job_id in job_ids:
        yield Drop("states", {"job_id": job_id})


def standing(job: Job, state: State) -> Job:
    """A job that was interrupted, as it was when it had come to a state."""
    curves: dict[str, Sequence[float]] = {"losses": ()}
    curves |= {name.removeprefix(CURVES): of.tolist() for name, of in state.arrays.items() if name.startswith(CURVES)}
    return replace(job, epoch=0, _curves={}).progressed(curves)


def went_on(job: Job, first: int) -> Iterator[Change]:
    """The epochs of a job that trains from the one after the `first` on, for those who follow it elsewhere."""
    curves = {name: np.array(job.curve(name, first)) for name in job.curves}
    yield Put("epochs", {"job_id": job.id, "first": first, "curves": dump(curves)})


def followed(store: Store, job: Job) -> Job:
    """A job with the epochs that it has come to elsewhere since it was known."""
    for row in store.rows("epochs", "first", "curves", job_id=job.id):
        known = job.epoch - row["first"]
        curves = {name: numbers[known:].tolist() for name, numbers in read(row["curves"]).items()}
        if known >= 0 and curves.get("losses"):
            job = job.progressed(curves)
    return job


def forgotten(job_ids: Sequence[str]) -> Iterator[Change]:
    """Jobs that are gone."""
    for job_id in job_ids:
        yield Drop("jobs", {"id": job_id})


def jobs(store: Store, now: Instant, **where: Any) -> Iterator[Job]:
    """The jobs that the store has, all or those of these ids, in the order in which they were made."""
    for row in store.rows("jobs", "id", "model_id", "given_id", "facts", "curves", **where):
        facts = orjson.loads(row["facts"])
        texts: dict[str, Any] = {name: facts.pop(name) for name in TIMES}
        times = {name: text and datetime.fromisoformat(text) for name, text in texts.items()}
        began = times["started_at"]
        # Never before it began, though the wall clock may have gone back meanwhile.
        started = None if began is None else now.seconds - max(0.0, (now.wall - began).total_seconds())
        history = tuple(Moved(JobState(state), epoch, reason) for state, epoch, reason in facts.pop("history"))
        curves = {name: array("d", numbers.tobytes()) for name, numbers in read(row["curves"]).items()}
        plan = from_dict(facts.pop("plan"))
        known = {"plan": plan, "history": history, "_started": started, "_curves": curves, **times, **facts}
        yield Job(id=row["id"], model_id=row["model_id"], given_id=row["given_id"], **known)


def state(store: Store, job_id: str) -> State | None:
    """Where a job stands or stopped, where the store has that."""
    for row in store.rows("states", "facts", "tensors", job_id=job_id):
        return from_parts(orjson.loads(row["facts"]), _owned(read(row["tensors"])))
    return None


def given_rows(store: Store, given_id: str) -> Arrays:
    """Rows that came with a request; none where they are gone."""
    for row in store.rows("given", "tensors", id=given_id):
        return _owned(read(row["tensors"]))
    return {}


def _owned(arrays: Mapping[str, Any]) -> Arrays:
    return {name: np.array(array) for name, array in arrays.items()}
