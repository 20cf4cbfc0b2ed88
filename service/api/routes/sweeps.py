"""Try many settings at once, and see which is best."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe, views
from service.api.accept import JsonRoute
from service.api.bodies import read, read_json
from service.api.deps import EngineOf, SettingsOf, in_thread, stored
from service.api.once import IdempotencyKey, Once
from service.api.paging import CursorQuery, LimitQuery, OrderQuery, page
from service.api.replies import listed, reply
from service.api.routes.models import must_have_sizes
from service.engine.sweeps import Sweep, Trial
from service.errors import (
    BadCursor,
    BaseNotFound,
    CapacityExhausted,
    DatasetNotFound,
    Draining,
    NotAcceptable,
    NotFound,
    ShapeMismatch,
    SweepBusy,
    SweepNotFound,
    TemporaryReducedCapacity,
    Validation,
)
from service.ids import SWEEP_ID
from service.schemas import fields, training
from service.schemas.sweeps import MAX_MEMBERS, SweepRequest

router = APIRouter(tags=["sweeps"], route_class=JsonRoute)

SweepIdPath = Annotated[str, Path(pattern=SWEEP_ID, description="the sweep's id", examples=[fields.A_SWEEP_ID])]

EXAMPLES = {
    "ranks and learning rates": {
        "model": {"in_features": 64, "out_features": 10},
        "train": {"epochs": 100, "data": {"kind": "teacher", "teacher_rank": 3, "noise": 0.3, "seed": 1}},
        "over": {"rank": [1, 2, 3, 4], "lr": {"low": 0.001, "high": 0.1, "count": 5}},
    }
}


@router.post(
    "/sweeps",
    operation_id="create_sweep",
    summary="Start a sweep",
    status_code=202,
    response_model=training.Sweep,
    responses={
        202: {"headers": describe.headers("Location")},
        **describe.problems(
            *describe.ONCE,
            *describe.STORED,
            *describe.JSON_BODY,
            NotAcceptable,
            BaseNotFound,
            DatasetNotFound,
            ShapeMismatch,
            CapacityExhausted,
            TemporaryReducedCapacity,
            Draining,
        ),
    },
    openapi_extra=describe.body(SweepRequest, EXAMPLES),
)
async def create_sweep(
    request: Request, engine: EngineOf, settings: SettingsOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Make a model for every combination, and train all of them on the same rows; those of one shape together.

    A sweep takes one place in the queue, has at most 256 members, and is all there or not at all.
    """
    asked = await read_json(request, SweepRequest, settings.json_body_mib)
    must_have_sizes(asked.model, "/model")
    common = asked.model.model_dump(exclude_unset=True, exclude={"combine", "layers"})
    try:
        trials = [Trial(*each) for each in asked.trials(engine.datasets.source)]
        rows = asked.train.rows()

        def answer(sweep: Sweep) -> Response:
            return reply(views.of_sweep(engine, sweep), 202, {"Location": f"/sweeps/{sweep.id}"})

        with Once(request, idempotency_key, engine.replies, answer) as once:
            if once.earlier is not None:  # the key is bound to the sweep, which may have gone on since
                return once.again(engine.sweeps.get)
            owner = request.state.caller.name
            return once.told(await stored(lambda: engine.sweeps.start(common, trials, rows, once.also, owner)))
    except Validation as error:
        raise error.moved(asked.place) from None


@router.get(
    "/sweeps",
    operation_id="list_sweeps",
    summary="List sweeps",
    response_model=training.SweepPage,
    responses={200: {"headers": describe.headers("Link")}, **describe.problems(BadCursor, Validation, NotAcceptable)},
)
async def list_sweeps(
    request: Request, engine: EngineOf, limit: LimitQuery = 20, cursor: CursorQuery = None, order: OrderQuery = "asc"
) -> Response:
    """A page of sweeps, with their leaderboards."""
    some, following = page(engine.sweeps.all(), ["sweeps"], limit, cursor, order)
    items = await in_thread(lambda: [views.of_sweep(engine, sweep) for sweep in some])
    return listed(request, training.SweepPage(items=items, next_cursor=following))


@router.get(
    "/sweeps/{sweep_id}",
    operation_id="get_sweep",
    summary="The leaderboard of a sweep",
    response_model=training.Sweep,
    responses=describe.problems(NotFound, SweepNotFound, NotAcceptable),
)
async def get_sweep(sweep_id: SweepIdPath, engine: EngineOf) -> Response:
    """The members by their loss on the held-out rows, the best first; those that failed come last."""
    return reply(views.of_sweep(engine, engine.sweeps.get(sweep_id)))


@router.post(
    "/sweeps/{sweep_id}/cancel",
    operation_id="cancel_sweep",
    summary="Cancel a sweep",
    response_model=training.Sweep,
    responses=describe.problems(*describe.ONCE, *describe.STORED, NotFound, SweepNotFound, NotAcceptable),
)
async def cancel_sweep(
    sweep_id: SweepIdPath,
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """All its jobs that have not ended are cancelled, or none; its models stay. One that has ended stays as it is."""
    await read(request, settings.json_body_mib)  # by which a key knows its request again

    def answer(sweep: Sweep) -> Response:
        return reply(views.of_sweep(engine, sweep))

    with Once(request, idempotency_key, engine.replies, answer) as once:
        if once.earlier is not None:
            return once.again(engine.sweeps.get)
        return once.told(await stored(lambda: engine.sweeps.cancel(sweep_id, once.also)))


@router.delete(
    "/sweeps/{sweep_id}",
    operation_id="delete_sweep",
    summary="Delete a sweep and its losers",
    status_code=204,
    responses=describe.problems(*describe.STORED, NotFound, SweepNotFound, SweepBusy, Validation),
)
async def delete_sweep(
    sweep_id: SweepIdPath,
    engine: EngineOf,
    keep: Annotated[int, Query(ge=0, le=MAX_MEMBERS, description="how many of the best models stay")] = 1,
    force: Annotated[bool, Query(description="cancel members that have not ended")] = False,
) -> Response:
    """The best model stays, or the best `keep`. While a member has not ended this is a 409, unless `force` is set.

    `POST /sweeps/{id}/cancel` ends its jobs and keeps all its models.
    """
    await stored(lambda: engine.sweeps.remove(sweep_id, keep=keep, force=force))
    return Response(status_code=204)
