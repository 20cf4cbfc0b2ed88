"""Say which rank a model needs."""

from dataclasses import asdict

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe
from service.api.accept import JsonRoute
from service.api.bodies import read_json
from service.api.deps import EngineOf, ModelIdPath, SettingsOf, in_thread
from service.api.replies import reply
from service.errors import (
    CapacityExhausted,
    DatasetNotFound,
    ModelNotFound,
    NotAcceptable,
    NotFound,
    ShapeMismatch,
    TemporaryReducedCapacity,
)
from service.schemas import training
from service.schemas.requests import RankProfileRequest

router = APIRouter(tags=["training"], route_class=JsonRoute)

EXAMPLES = {
    "a hidden change of rank 2": {"data": {"kind": "teacher", "teacher_rank": 2, "noise": 0.1, "seed": 1}},
    "noise alone": {},
}


@router.post(
    "/models/{model_id}/rank-profile",
    operation_id="rank_profile",
    summary="Which rank does this data need?",
    response_model=training.RankProfile,
    responses=describe.problems(
        *describe.JSON_BODY,
        NotAcceptable,
        NotFound,
        ModelNotFound,
        DatasetNotFound,
        ShapeMismatch,
        CapacityExhausted,
        TemporaryReducedCapacity,
    ),
    openapi_extra=describe.body(RankProfileRequest, EXAMPLES),
)
async def rank_profile(model_id: ModelIdPath, request: Request, engine: EngineOf, settings: SettingsOf) -> Response:
    """The lowest mse that any adapter on the model's base can have on the data, for every rank from 0 up.

    Exact, by reduced-rank regression, without a training: a rank whose loss is hardly below that of the one before
    is one too many.
    """
    asked = await read_json(request, RankProfileRequest, settings.json_body_mib)
    source, rows = asked.data.described(engine.datasets.source), asked.rows()
    data, reaches = await in_thread(lambda: engine.rank_profile(model_id, source, rows))
    ranks = [training.Reach(rank=reach.rank, loss=reach.loss, trainable=reach.trainable) for reach in reaches]
    return reply(training.RankProfile(model_id=model_id, data=asdict(data), ranks=ranks))
