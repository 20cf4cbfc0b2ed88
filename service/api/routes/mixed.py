"""Run many models in one request."""

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe
from service.api.accept import accepted
from service.api.bodies import media_type, must_be, read, validated
from service.api.deps import EngineOf, SettingsOf, soon
from service.api.query import StrictRoute
from service.bounds import cut
from service.codecs.codec import Answer, Array, fits
from service.codecs.json import JSON, encode_all, tensor
from service.codecs.safetensors import SAFETENSORS, dump, load
from service.engine import Engine
from service.errors import (
    BadSafetensors,
    Fault,
    LimitExceeded,
    ModelNotFound,
    NotAcceptable,
    ShapeMismatch,
    TemporaryReducedCapacity,
    pointer,
)
from service.models.model import LoadedModel
from service.schemas.answers import MixedForwardResponse
from service.schemas.fields import A_MODEL_ID
from service.schemas.requests import MAX_ITEMS, MixedForwardRequest

router = APIRouter(tags=["forward"], route_class=StrictRoute)

TYPES = [JSON.media_type, SAFETENSORS.media_type]
EXAMPLES = {"two models": {"items": [{"model_id": A_MODEL_ID, "inputs": [[0.5] * 64]}] * 2}}

# A name for each item, its model, and the rows for it.
Items = list[tuple[str, LoadedModel, Array]]


@router.post(
    "/forward",
    operation_id="forward_many",
    summary="Run many models",
    response_model=MixedForwardResponse,
    responses={
        200: {
            "description": "The outputs of each item, in the type that Accept asks for; the request's own by default",
            "content": {SAFETENSORS.media_type: {"schema": {"type": "string", "format": "binary"}}},
        },
        **describe.problems(
            *describe.JSON_BODY, ModelNotFound, NotAcceptable, ShapeMismatch, BadSafetensors, TemporaryReducedCapacity
        ),
    },
    openapi_extra=describe.body(MixedForwardRequest, EXAMPLES, binary=[SAFETENSORS.media_type]),
)
async def forward_many(request: Request, engine: EngineOf, settings: SettingsOf) -> Response:
    """Items on one base share one pass over its weight, whatever adapters they are for.

    As safetensors, a tensor's name is the id of its model, and what follows a slash tells those of one model apart:
    `mdl_…/1`. The outputs have the same names, and `model_versions` in the metadata says what answered, as JSON.
    """
    given = media_type(request)
    must_be(given, TYPES)
    wanted = accepted(request, [given, *TYPES])
    binary = given == SAFETENSORS.media_type
    body = await read(request, settings.binary_body_mib if binary else settings.json_body_mib)

    def work() -> bytes:
        items = (from_safetensors if binary else from_json)(body, engine)
        answers = engine.forwards.run_all([(model, x) for _, model, x in items])
        names = [name for name, _, _ in items]
        return as_safetensors(names, answers) if wanted == SAFETENSORS.media_type else encode_all(answers)

    content = await soon(work, settings.forward_wait_ms / 1_000, request.receive)
    return Response(content, media_type=wanted)


def from_json(body: bytes | bytearray, engine: Engine) -> Items:
    """The items of `{"items": [{"model_id", "inputs"}, …]}`."""
    asked = validated(body, MixedForwardRequest)
    items = []
    for at, item in enumerate(asked.items):
        model = found(engine, item.model_id, f"items[{at}]", pointer("items", at, "model_id"))
        x = tensor(item.inputs, model.spec.in_features, f"items.{at}.inputs")
        items.append((f"{model.id}/{at}", model, x))
    return items


def from_safetensors(body: bytes | bytearray, engine: Engine) -> Items:
    """The tensors of a file, each of which names its model."""
    tensors = load(body)
    if not 1 <= len(tensors) <= MAX_ITEMS:
        detail = f"the file holds {len(tensors)} tensors; it must hold 1 to {MAX_ITEMS}"
        raise LimitExceeded(detail, Fault("", detail), limit=MAX_ITEMS)
    items = []
    for name, x in tensors.items():
        model = found(engine, cut(name.partition("/")[0], 60), f"the tensor {cut(name, 60)}", pointer(cut(name, 60)))
        items.append((name, model, fits(x, model.spec.in_features, cut(name, 60))))
    return items


def found(engine: Engine, model_id: str, where: str, at: str) -> LoadedModel:
    """The model of an item.

    Raises:
        ModelNotFound: which names the item.
    """
    try:
        return engine.registry.loaded(model_id)
    except ModelNotFound as error:
        detail = f"{where}: {error.detail}"
        raise ModelNotFound(detail, Fault(at, detail)) from None


def as_safetensors(names: list[str], answers: list[Answer]) -> bytes:
    """The answers as tensors under the names of their items."""
    versions = {name: answer.model_version for name, answer in zip(names, answers, strict=True)}
    outputs = {name: answer.outputs for name, answer in zip(names, answers, strict=True)}
    return dump(outputs, ("model_versions", orjson.dumps(versions, option=orjson.OPT_SORT_KEYS).decode()))
