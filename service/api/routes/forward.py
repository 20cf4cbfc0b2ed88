"""Run models on posted tensors."""

from fastapi import APIRouter

from service.api import describe
from service.api.deps import ModelIdPath, VersionQuery
from service.api.forward import ROUTE
from service.api.fresh import MinVersion
from service.api.query import StrictRoute
from service.errors import (
    BadNpy,
    BadSafetensors,
    ModelNotFound,
    NotAcceptable,
    NotFound,
    ShapeMismatch,
    Stale,
    TemporaryReducedCapacity,
    VersionNotFound,
)
from service.schemas.answers import ForwardResponse
from service.schemas.requests import ForwardRequest

router = APIRouter(tags=["forward"], route_class=StrictRoute)

EXAMPLES = {"one row for 64 to 10": {"inputs": [0.5] * 64}, "two rows for 64 to 10": {"inputs": [[0] * 64, [1] * 64]}}


@router.post(
    ROUTE,
    operation_id="forward",
    summary="Run a model on inputs",
    response_model=ForwardResponse,
    responses={
        200: {
            "description": "The outputs, in the type that Accept asks for; the request's own by default",
            "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in describe.BINARY},
            "headers": describe.headers("X-Model-Version"),
        },
        **describe.problems(
            *describe.JSON_BODY,
            NotFound,
            ModelNotFound,
            VersionNotFound,
            Stale,
            NotAcceptable,
            ShapeMismatch,
            BadNpy,
            BadSafetensors,
            TemporaryReducedCapacity,
        ),
    },
    openapi_extra=describe.body(ForwardRequest, EXAMPLES, binary=describe.BINARY),
)
async def forward(model_id: ModelIdPath, version: VersionQuery = None, least: MinVersion = None) -> None:
    """y = x Wᵀ + b + scaling·(x Aᵀ) Bᵀ for inputs of shape (…, in_features), by one published version.

    Tensors come and go as JSON, npy, safetensors (`inputs`, `outputs`) or bare little-endian float32.
    """
    # The door has sent every model's id to `service.api.forward`; what comes here has none, and is refused above.
    raise AssertionError(f"{model_id} passed the door")  # pragma: no cover
