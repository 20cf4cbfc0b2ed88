"""Run models on posted tensors."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe
from service.api.accept import codec_out
from service.api.bodies import codec_in, read
from service.api.deps import ModelIdPath, engine_of, off_loop, settings_of
from service.codecs.codec import MAX_ELEMENTS, Answer, Codec
from service.codecs.json import JSON
from service.errors import (
    BadNpy,
    BadSafetensors,
    Fault,
    LimitExceeded,
    ModelNotFound,
    NotAcceptable,
    NotFound,
    ShapeMismatch,
)
from service.schemas.answers import ForwardResponse
from service.schemas.requests import ForwardRequest

router = APIRouter(tags=["forward"])

EXAMPLES = {"one row for 64 to 10": {"inputs": [0.5] * 64}, "two rows for 64 to 10": {"inputs": [[0] * 64, [1] * 64]}}


@router.post(
    "/models/{model_id}/forward",
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
            *describe.JSON_BODY, NotFound, ModelNotFound, NotAcceptable, ShapeMismatch, BadNpy, BadSafetensors
        ),
    },
    openapi_extra=describe.body(ForwardRequest, EXAMPLES, binary=True),
)
async def forward(model_id: ModelIdPath, request: Request) -> Response:
    """y = x Wᵀ + b + scaling·(x Aᵀ) Bᵀ for inputs of shape (…, in_features), by one published version.

    Tensors come and go as JSON, npy, safetensors (`inputs`, `outputs`) or bare little-endian float32.
    """
    # Asked for by name: as dependencies these two would take a quarter of a small forward's time.
    engine, settings = await engine_of(request), await settings_of(request)
    spec = engine.registry.get(model_id).spec
    reader = codec_in(request)
    writer = codec_out(request, reader)
    body = await read(request, settings.json_body_mib if reader is JSON else settings.binary_body_mib)

    def work() -> tuple[Answer, bytes]:
        answer = engine.forward(model_id, reader.decode(body, spec.in_features))
        must_be_writable(answer, writer)
        return answer, writer.encode(answer)

    # Multiplications grow with one of these, and the size of the answer with the other.
    cost = len(body) * max(1, spec.out_features // 256, spec.out_features // spec.in_features)
    answer, content = await off_loop(cost, work)
    return Response(content, headers={"X-Model-Version": str(answer.model_version)}, media_type=writer.media_type)


def must_be_writable(answer: Answer, writer: Codec) -> None:
    """Raise LimitExceeded for outputs that JSON would blow up beyond reason."""
    if writer is JSON and answer.outputs.size > MAX_ELEMENTS:
        detail = f"the outputs have {answer.outputs.size} numbers; JSON carries at most {MAX_ELEMENTS}"
        raise LimitExceeded(f"{detail}, so ask for a binary type in Accept", Fault("/inputs", detail))
