"""Look at the change of the weight that a model makes, also beside another's."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from service.api import describe
from service.api.accept import JsonRoute
from service.api.deps import EngineOf, ModelIdPath, in_thread
from service.api.replies import reply
from service.errors import (
    CapacityExhausted,
    LimitExceeded,
    ModelNotFound,
    NotAcceptable,
    NotFound,
    TemporaryReducedCapacity,
    Validation,
)
from service.ids import MODEL_ID
from service.lora.spec import MAX_LAYERS
from service.schemas import analysis, fields

router = APIRouter(tags=["models"], route_class=JsonRoute)

With = Annotated[
    str | None,
    Query(
        alias="with",
        pattern=MODEL_ID,
        description="another model on the same base, to compare the changes of the two",
        examples=[fields.A_MODEL_ID],
    ),
]


LayerQuery = Annotated[int, Query(ge=0, lt=MAX_LAYERS, description="of a model that has several, which one")]


@router.get(
    "/models/{model_id}/analysis",
    operation_id="analyse_model",
    summary="What does a model change?",
    response_model=analysis.Analysis,
    responses={
        200: {"headers": describe.headers("X-Model-Version")},
        **describe.problems(
            NotFound,
            ModelNotFound,
            NotAcceptable,
            Validation,
            LimitExceeded,
            CapacityExhausted,
            TemporaryReducedCapacity,
        ),
    },
)
async def analyse_model(
    model_id: ModelIdPath, engine: EngineOf, beside: With = None, layer: LayerQuery = 0
) -> Response:
    """The singular values of its change ΔW of the weight and the ranks they amount to, norms, and pictures.

    In float64, and of a low-rank change without forming it. With `use_dora` ΔW is decomposed whole, which is a 422
    beyond the limit `decomposition_work`; that of a 4096 by 4096 layer is within it. A change of nothing has singular
    values, ranks and norm 0, and null where 0 would be divided by 0.
    """
    model, found = await in_thread(lambda: engine.analyst.analysed(model_id, beside, layer))
    body = analysis.Analysis(model_id=model.id, version=model.version, **asdict(found))
    return reply(body, headers={"X-Model-Version": str(model.version)})
