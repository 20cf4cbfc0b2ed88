"""The Open Inference Protocol v2, for clients of KServe, Triton and MLServer that send one tensor of numbers."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from service import __version__
from service.api import describe
from service.api.bodies import MIB, media_type, must_be, read, too_large, validated
from service.api.deps import EngineOf, ModelIdPath, SettingsOf, soon
from service.api.forward import SPOT_BYTES, SPOT_OUTPUTS, run
from service.api.query import StrictRoute
from service.api.replies import reply
from service.api.routes.system import readyz
from service.bounds import shown
from service.codecs import oip
from service.codecs.codec import Array
from service.codecs.json import JSON
from service.codecs.raw import RAW
from service.engine import Engine
from service.errors import (
    Fault,
    ModelNotFound,
    NotFound,
    NotReady,
    ShapeMismatch,
    TemporaryReducedCapacity,
    Validation,
    VersionNotFound,
)
from service.models.model import Model
from service.schemas.oip import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)

T = TypeVar("T")

router = APIRouter(tags=["open inference protocol"], route_class=StrictRoute)

JSON_LENGTH = "Inference-Header-Content-Length"
PLATFORM = "lora_service_linear"
EXAMPLES = {
    "one row for 64 to 10": {"inputs": [{"name": "inputs", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}
}
FOUND = describe.problems(NotFound, ModelNotFound, VersionNotFound)

Version = Annotated[str | None, Field(description="one of the versions that the model keeps")]


@router.get(
    "/v2",
    operation_id="server_metadata",
    summary="What serves the models",
    response_model=ServerMetadata,
    responses=describe.problems(),
)
async def server_metadata() -> Response:
    """Name, version and extensions."""
    return reply(ServerMetadata(name="lora-service", version=__version__, extensions=["binary_tensor_data"]))


@router.get(
    "/v2/health/live",
    operation_id="server_live",
    summary="Whether the process answers",
    response_model=ServerLive,
    responses=describe.problems(),
)
async def server_live() -> Response:
    """200 as long as the event loop turns."""
    return _said(ServerLive(live=True))


@router.get(
    "/v2/health/ready",
    operation_id="server_ready",
    summary="Whether the service takes work",
    response_model=ServerReady,
    responses=describe.problems(NotReady),
)
async def server_ready(engine: EngineOf) -> Response:
    """200 or 503, as `/readyz`."""
    await readyz(engine)
    return _said(ServerReady(ready=True))


@router.get(
    "/v2/models/{model_id}/versions/{version}",
    operation_id="model_version_metadata",
    summary="What a model takes and gives",
    response_model=ModelMetadata,
    responses=FOUND,
)
@router.get(
    "/v2/models/{model_id}",
    operation_id="model_metadata",
    summary="What a model takes and gives",
    response_model=ModelMetadata,
    responses=FOUND,
)
async def model_metadata(model_id: ModelIdPath, engine: EngineOf, version: Version = None) -> Response:
    """Names, datatypes and shapes of its tensors."""
    model, _ = served(engine, model_id, version)
    spec = model.spec
    return reply(
        ModelMetadata(
            name=model.id,
            versions=[str(mark.number) for mark in model.kept],
            platform=PLATFORM,
            inputs=[TensorMetadata(name=oip.INPUT, datatype="FP32", shape=[-1, spec.in_features])],
            outputs=[TensorMetadata(name=oip.OUTPUT, datatype="FP32", shape=[-1, spec.out_features])],
        )
    )


@router.get(
    "/v2/models/{model_id}/versions/{version}/ready",
    operation_id="model_version_ready",
    summary="Whether a model can be run",
    response_model=ModelReady,
    responses=FOUND,
)
@router.get(
    "/v2/models/{model_id}/ready",
    operation_id="model_ready",
    summary="Whether a model can be run",
    response_model=ModelReady,
    responses=FOUND,
)
async def model_ready(model_id: ModelIdPath, engine: EngineOf, version: Version = None) -> Response:
    """200 as soon as it is there."""
    model, _ = served(engine, model_id, version)
    return _said(ModelReady(name=model.id, ready=True))


INFER = {
    "response_model": InferResponse,
    "responses": {
        200: {
            "description": "The outputs: in the JSON, or behind it where binary_data asks for that",
            "content": {RAW.media_type: {"schema": {"type": "string", "format": "binary"}}},
            "headers": describe.headers(JSON_LENGTH),
        },
        **describe.problems(
            *describe.JSON_BODY, NotFound, ModelNotFound, VersionNotFound, ShapeMismatch, TemporaryReducedCapacity
        ),
    },
    "openapi_extra": describe.body(InferRequest, EXAMPLES, binary=[RAW.media_type]),
}


@router.post(
    "/v2/models/{model_id}/versions/{version}/infer",
    operation_id="infer_version",
    summary="Run a model on one input tensor",
    **INFER,
)
@router.post("/v2/models/{model_id}/infer", operation_id="infer", summary="Run a model on one input tensor", **INFER)
async def infer(
    model_id: ModelIdPath,
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    version: Version = None,
    json_length: Annotated[int | None, Header(alias=JSON_LENGTH, ge=0, description="how much of it is JSON")] = None,
) -> Response:
    """The outputs for inputs of shape (…, in_features), whatever the tensor is called."""
    served(engine, model_id, version)
    must_be(media_type(request) or JSON.media_type, [JSON.media_type, RAW.media_type])
    body = await read(request, settings.json_body_mib if json_length is None else settings.binary_body_mib)
    if json_length is not None and settings.json_body_mib * MIB < json_length <= len(body):
        raise too_large(str(json_length), settings.json_body_mib * MIB)
    wait_seconds = settings.forward_wait_ms / 1_000
    model, number = served(engine, model_id, version)

    async def done(work: Callable[[], T], quick: bool) -> T:
        return work() if quick else await soon(work, wait_seconds, request.receive)

    wanted, x = await done(lambda: asked(body, json_length, model.spec.in_features), len(body) <= SPOT_BYTES)
    answer = await run(engine, model_id, x, wait_seconds, request.receive, number)
    content, length = await done(
        lambda: oip.encode(answer, wanted.id, binary=wanted.binary), answer.outputs.size <= SPOT_OUTPUTS
    )
    if length is None:
        return Response(content, media_type=JSON.media_type)
    return Response(content, headers={JSON_LENGTH: str(length)}, media_type=RAW.media_type)


def asked(body: bytes | bytearray, json_length: int | None, in_features: int) -> tuple[InferRequest, Array]:
    """What a request wants, and its input.

    Raises:
        MalformedJson, Validation, ShapeMismatch, NonFinite, LimitExceeded
    """
    if json_length is not None and not 0 < json_length <= len(body):
        detail = f"{JSON_LENGTH} is {json_length}; it must be 1 to {len(body)}, as many as the body has bytes"
        raise Validation(detail, Fault("", detail))
    wanted = validated(body[:json_length], InferRequest)
    (tensor,) = wanted.inputs
    rest = memoryview(body)[len(body) if json_length is None else json_length :]
    size = tensor.binary_size
    if size is None and not rest:
        return wanted, oip.from_data(tensor.data, tensor.shape, in_features)
    if size != len(rest):
        detail = f"binary_data_size is {shown(size)}; it must be {len(rest)}, as many bytes as follow the JSON"
        raise ShapeMismatch(detail, Fault("/inputs/0/parameters/binary_data_size", detail))
    if tensor.data is not None:
        detail = "inputs.0 has both data and the parameter binary_data_size; it must have one of them"
        raise Validation(detail, Fault("/inputs/0/data", detail))
    return wanted, oip.from_bytes(rest, tensor.datatype, tensor.shape, in_features)


def served(engine: Engine, model_id: str, version: str | None) -> tuple[Model, int | None]:
    """The model, and the number of the version that is to answer; None is the current one.

    Raises:
        ModelNotFound, VersionNotFound
    """
    model = engine.registry.get(model_id)
    if version is None:
        return model, None
    numbers = {str(mark.number): mark.number for mark in model.kept}
    if version not in numbers:
        raise VersionNotFound(
            f"model {model_id} keeps no version {version[:20]}; GET /v2/models/{model_id} lists those it keeps"
        )
    return model, numbers[version]


def _said(what: BaseModel) -> Response:
    return reply(what, headers={"Cache-Control": "no-store"})
