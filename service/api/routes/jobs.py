"""Follow, cancel and forget training jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from pydantic import BeforeValidator
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe, sse, views
from service.api.accept import JsonRoute, accepted
from service.api.bodies import read
from service.api.deps import EngineOf, JobIdPath, SettingsOf, off_loop, stored, written
from service.api.once import IdempotencyKey, Once
from service.api.paging import CursorQuery, LimitQuery, OrderQuery, page, whole
from service.api.replies import listed, reply
from service.api.streams import stream
from service.codecs.json import JSON
from service.errors import (
    BadCursor,
    JobActive,
    JobNotFound,
    NotAcceptable,
    NotFound,
    TemporaryReducedCapacity,
    Validation,
)
from service.ids import MODEL_ID
from service.jobs import events
from service.jobs.events import SINGULAR
from service.jobs.job import Job
from service.jobs.state import State
from service.schemas import training
from service.training.plan import MAX_EPOCHS

router = APIRouter(tags=["jobs"], route_class=JsonRoute)

CSV = "text/csv"
BYTES_PER_LOSS = 20  # in JSON

PointsQuery = Annotated[
    int | None,
    Query(ge=0, le=MAX_EPOCHS, description="of each curve at most so many points, its lowest and highest among them"),
]
AfterQuery = Annotated[int | None, Query(ge=0, description="only events with a higher number"), BeforeValidator(whole)]
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="as EventSource sends it when it reconnects")
]


@router.get(
    "/jobs",
    operation_id="list_jobs",
    summary="List jobs",
    response_model=training.JobPage,
    responses={200: {"headers": describe.headers("Link")}, **describe.problems(BadCursor, Validation, NotAcceptable)},
)
async def list_jobs(
    request: Request,
    engine: EngineOf,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
    order: OrderQuery = "asc",
    model_id: Annotated[str | None, Query(pattern=MODEL_ID, description="only those of this model")] = None,
    state: Annotated[State | None, Query(description="only those in this state")] = None,
    points: PointsQuery = None,
) -> Response:
    """A page of jobs; those of deleted models are among them."""
    jobs = [job for job in engine.ledger.all() if model_id in (None, job.model_id) and state in (None, job.state)]
    some, following = page(jobs, ["jobs", model_id, state], limit, cursor, order)

    def answer() -> Response:
        items = [views.of_job(job, points) for job in some]
        return listed(request, training.JobPage(items=items, next_cursor=following))

    return await off_loop(BYTES_PER_LOSS * sum(job.epoch for job in some), answer)


@router.get(
    "/jobs/{job_id}",
    operation_id="get_job",
    summary="One job, with the losses so far",
    response_model=training.Job,
    responses=describe.problems(NotFound, JobNotFound, NotAcceptable, Validation),
)
async def get_job(job_id: JobIdPath, engine: EngineOf, points: PointsQuery = None) -> Response:
    """The job as it is now."""
    return reply(views.of_job(engine.ledger.get(job_id), points))


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    response_model=training.Job,
    responses=describe.problems(*describe.ONCE, *describe.STORED, NotFound, JobNotFound, NotAcceptable),
)
async def cancel_job(
    job_id: JobIdPath,
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The worker stops after the step it is at; the model keeps its version. A job that has ended stays as it is."""
    await read(request, settings.json_body_mib)  # by which a key knows its request again

    def answer(job: Job) -> Response:
        return reply(views.of_job(job))

    with Once(request, idempotency_key, engine.replies, answer) as once:
        if once.earlier is not None:
            return once.again(engine.ledger.get)
        return once.told(await stored(lambda: engine.cancel(job_id, once.also)))


@router.delete(
    "/jobs/{job_id}",
    operation_id="delete_job",
    summary="Forget a job that has ended",
    status_code=204,
    responses=describe.problems(*describe.STORED, NotFound, JobNotFound, JobActive),
)
async def delete_job(job_id: JobIdPath, engine: EngineOf) -> Response:
    """The model it trained stays."""
    await written(engine, 0, lambda: engine.trainings.remove(job_id))
    return Response(status_code=204)


@router.get(
    "/jobs/{job_id}/losses.csv",
    operation_id="get_losses_csv",
    summary="The losses as CSV",
    response_class=Response,
    responses={
        200: {
            "description": "A header, then one line per finished epoch",
            "content": {CSV: {"schema": {"type": "string"}, "example": "epoch,loss\n1,1.25\n"}},
        },
        **describe.problems(NotFound, JobNotFound, NotAcceptable),
    },
)
async def get_losses_csv(job_id: JobIdPath, request: Request, engine: EngineOf) -> Response:
    """Columns `epoch` and `loss`, and where the job has them `validation_loss`, `accuracy`, `validation_accuracy`."""
    accepted(request, [CSV])
    job = engine.ledger.get(job_id)
    curves = job.curves or ("losses",)
    header = ",".join(["epoch", *(SINGULAR[name] for name in curves)])
    numbers = zip(*(job.curve(name) for name in curves), strict=True)
    lines = (",".join([str(epoch), *map(repr, row)]) for epoch, row in enumerate(numbers, start=1))
    headers = {"Content-Disposition": f'attachment; filename="{job_id}.csv"'}
    return Response("".join(f"{line}\n" for line in (header, *lines)), headers=headers, media_type=CSV)


@router.get(
    "/jobs/{job_id}/events",
    operation_id="get_job_events",
    summary="What happens to a job, live",
    response_class=Response,
    responses={
        200: {
            "description": "Events `state`, `epoch` and `done`, numbered from 1 without gap; the same list as JSON",
            "content": {
                sse.MEDIA_TYPE: {"schema": {"type": "string"}},
                JSON.media_type: {"schema": describe.reference(training.EventPage)},
            },
        },
        204: {"description": "The job has ended and the client has seen all its events"},
        **describe.problems(NotFound, JobNotFound, NotAcceptable, TemporaryReducedCapacity),
    },
)
async def get_job_events(
    job_id: JobIdPath,
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    after: AfterQuery = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Server-Sent Events from the first on, or from the one after `Last-Event-ID` or `?after=`."""
    job = engine.ledger.get(job_id)
    seen = number(last_event_id) if last_event_id is not None else after or 0
    if accepted(request, [sse.MEDIA_TYPE, JSON.media_type]) == JSON.media_type:
        items = [training.Event(id=e.number, event=e.kind, data=e.data) for e in events.since(job, seen)]
        return reply(training.EventPage(items=items))
    if job.state.terminal and seen == events.count(job):
        return Response(status_code=204)  # EventSource stops asking
    return stream(request, settings.sse_streams, sse.of_job(engine, job_id, seen))


@router.get(
    "/events",
    operation_id="get_events",
    summary="What happens to all jobs, live",
    response_class=Response,
    responses={
        200: {
            "description": "The events of all jobs, with `job_id`, `model_id` and the event's `number` in its job",
            "content": {sse.MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        **describe.problems(NotAcceptable, TemporaryReducedCapacity),
    },
)
async def get_events(
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    after: AfterQuery = None,
    last_event_id: LastEventId = None,
) -> Response:
    """One stream for a whole page: from now on, or from `Last-Event-ID` as far back as is remembered."""
    accepted(request, [sse.MEDIA_TYPE])
    place = number(last_event_id) if last_event_id is not None else after
    seen = engine.ledger.place if place is None else min(place, engine.ledger.place)
    return stream(request, settings.sse_streams, sse.of_all(engine, seen))


def number(text: str) -> int:
    """The number of an event; whatever is none stands for the beginning, since EventSource sends what it has."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
