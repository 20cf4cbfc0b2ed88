"""Launch training jobs."""

import re
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header
from pydantic import WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe, sse, views
from service.api.accept import JsonRoute
from service.api.bodies import read_json
from service.api.deps import EngineOf, ModelIdPath, SettingsOf, written
from service.api.once import IdempotencyKey, Once
from service.api.replies import reply
from service.errors import (
    CapacityExhausted,
    DatasetNotFound,
    Draining,
    JobNotFound,
    ModelNotFound,
    NotAcceptable,
    NotFound,
    ShapeMismatch,
    StateGone,
    TemporaryReducedCapacity,
)
from service.jobs.job import Job
from service.schemas import training
from service.schemas.requests import TrainRequest
from service.training.sources import is_weighted

router = APIRouter(tags=["training"], route_class=JsonRoute)

MAX_WAIT_SECONDS = 60
WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?", re.IGNORECASE)

# One string to whoever writes it, though HTTP lets a header come several times.
Prefer = Annotated[
    list[str] | None,
    Header(alias="Prefer", description="wait=SECONDS, at most 60 (RFC 7240)"),
    WithJsonSchema({"type": "string", "examples": ["wait=30"]}),
]

EXAMPLES = {
    "all defaults": {},
    "handwritten digits": {
        "epochs": 30,
        "batch_size": 64,
        "loss": "cross_entropy",
        "data": {"kind": "digits"},
    },
    "something learnable": {
        "epochs": 200,
        "optimizer": "adamw",
        "data": {"kind": "teacher", "teacher_rank": 2, "noise": 0.1, "seed": 1},
    },
}


@router.post(
    "/models/{model_id}/train",
    operation_id="train_model",
    summary="Train a model",
    status_code=202,
    response_model=training.Job,
    responses={
        200: {
            "model": training.Job,
            "description": "The job has ended within the time of `Prefer: wait=SECONDS`",
            "headers": describe.headers("Location", "Preference-Applied"),
        },
        202: {"headers": describe.headers("Location", "Preference-Applied", "Retry-After")},
        **describe.problems(
            *describe.ONCE,
            *describe.STORED,
            *describe.JSON_BODY,
            NotAcceptable,
            NotFound,
            ModelNotFound,
            DatasetNotFound,
            JobNotFound,
            StateGone,
            ShapeMismatch,
            CapacityExhausted,
            TemporaryReducedCapacity,
            Draining,
        ),
    },
    openapi_extra=describe.body(TrainRequest, EXAMPLES, required=False),
)
async def train_model(
    model_id: ModelIdPath,
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a job that trains a private copy and publishes it as the model's next version when it succeeds.

    With `Prefer: wait=SECONDS` (at most 60) the answer comes when the job has ended, or the time is up.
    """
    asked = await read_json(request, TrainRequest, settings.json_body_mib, optional=True)

    def answer(job: Job) -> Response:
        soon = {} if job.state.terminal else {"Retry-After": "1"}
        return reply(views.of_job(job), 200 if job.state.terminal else 202, {"Location": f"/jobs/{job.id}", **soon})

    with Once(request, idempotency_key, engine.replies, answer) as once:
        if once.earlier is not None:  # the key is bound to the job, which may have gone on since
            return once.again(engine.ledger.get)
        plan = asked.plan(engine.datasets.source, engine.plan_of)
        rows = asked.rows()
        looked_at = plan.data.n_samples * is_weighted(plan.data)  # weights are looked at one by one
        size = sum(array.nbytes for array in rows.values())  # and rows are named by their bytes
        owner = request.state.caller.name
        job = await written(engine, looked_at + size, lambda: engine.train(model_id, plan, rows, once.also, owner))
        once.told(job)
    wait = wait_seconds(prefer or [])
    if wait is None:
        return answer(job)
    with suppress(JobNotFound):  # ended, and forgotten already for newer ones
        await sse.until_ended(engine, job.id, wait)
        job = engine.ledger.get(job.id)
    answered = answer(job)
    answered.headers["Preference-Applied"] = f"wait={wait}"
    return answered


def wait_seconds(prefer: list[str]) -> int | None:
    """The seconds of `Prefer: wait`, at most 60; None without one."""
    found = WAIT.search(",".join(prefer))
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else None
