"""Take adapters to PEFT, bring them from there, and take a model as one plain layer."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe, etags, views
from service.api.accept import JsonRoute, accepted
from service.api.bodies import media_type, must_be, read
from service.api.deps import EngineOf, ModelIdPath, SettingsOf, VersionQuery, read_at, stored
from service.api.replies import FILE_TYPES, file, reply
from service.codecs import peft, safetensors
from service.codecs.json import JSON, dumps
from service.codecs.safetensors import SAFETENSORS
from service.errors import (
    BadSafetensors,
    ModelBusy,
    ModelNotFound,
    NonFinite,
    NotAcceptable,
    NotFound,
    ShapeMismatch,
    Stale,
    TemporaryReducedCapacity,
    TooLarge,
    UnsupportedEncoding,
    UnsupportedMediaType,
    Validation,
    VersionNotFound,
)
from service.models.model import Model
from service.schemas import answers

router = APIRouter(tags=["adapters"], route_class=JsonRoute)

MAX_MODULE = 200
HEADERS = describe.headers("X-Model-Version", "ETag")
REFUSALS = (NotFound, ModelNotFound, NotAcceptable, TemporaryReducedCapacity)

Module = Annotated[
    str | None,
    Query(
        pattern=peft.MODULE,
        max_length=MAX_MODULE,
        description="the module of a network that PEFT adapts, by default `linear`; "
        "of several layers that which has them, by default `layers`",
    ),
]


@router.get(
    "/models/{model_id}/adapter/adapter_config.json",
    operation_id="get_adapter_config",
    summary="What PEFT needs to know of a model's adapter",
    responses={
        200: {
            "headers": HEADERS,
            "description": "The file of that name in a PEFT adapter",
            "content": {JSON.media_type: {"schema": describe.reference(answers.AdapterConfig)}},
        },
        304: {"description": "the client has it"},
        **describe.problems(NotFound, ModelNotFound, NotAcceptable, Validation),
    },
    openapi_extra=describe.condition("If-None-Match"),
)
async def get_adapter_config(
    model_id: ModelIdPath, request: Request, engine: EngineOf, module: Module = None
) -> Response:
    """Beside `adapter_model.safetensors` in a folder, `peft.PeftModel.from_pretrained` loads it on a plain network."""
    accepted(request, [JSON.media_type])
    model = engine.registry.get(model_id)
    return file(request, dumps(peft.config(model.spec, module)), JSON.media_type, model)


@router.get(
    "/models/{model_id}/adapter/adapter_model.safetensors",
    operation_id="get_adapter",
    summary="A model's adapter, as PEFT writes it",
    response_class=Response,
    responses={
        200: {**describe.binary("…lora_A.weight, …lora_B.weight, …base_layer.bias", *FILE_TYPES), "headers": HEADERS},
        304: {"description": "the client has it"},
        **describe.problems(*REFUSALS, VersionNotFound, Validation),
    },
    openapi_extra=describe.condition("If-None-Match"),
)
async def get_adapter(
    model_id: ModelIdPath,
    request: Request,
    engine: EngineOf,
    module: Module = None,
    version: VersionQuery = None,
) -> Response:
    """float32, under PEFT's names for `module`. The base stays here: `GET /models/{id}/weights` has it too."""
    kind = accepted(request, FILE_TYPES)
    model = engine.registry.get(model_id)

    def work() -> tuple[Model, bytes]:
        model, adapter = engine.adapters.own(model_id, version)
        return model, peft.dumped(adapter, model.spec, module)

    model, body = await read_at(version, model.nbytes, work)
    return file(request, body, kind, model)


@router.put(
    "/models/{model_id}/adapter",
    operation_id="put_adapter",
    summary="Bring an adapter",
    response_model=answers.Model,
    responses={
        200: {"headers": describe.headers("ETag")},
        **describe.problems(
            *describe.STORED,
            *REFUSALS,
            TooLarge,
            UnsupportedMediaType,
            UnsupportedEncoding,
            BadSafetensors,
            ShapeMismatch,
            NonFinite,
            Validation,
            ModelBusy,
            Stale,
        ),
    },
    openapi_extra={
        **describe.upload(
            "lora_A.weight, lora_B.weight and, where the model trains it, bias; or PEFT's file", SAFETENSORS.media_type
        ),
        **describe.condition("If-Match"),
    },
)
async def put_adapter(
    model_id: ModelIdPath, request: Request, engine: EngineOf, settings: SettingsOf, module: Module = None
) -> Response:
    """Its weights become the model's next version. The file must hold all the tensors of the model, and no others.

    With `pissa` and `olora`, A and B may come alone, with what they began with, or as PEFT has them after a conversion:
    of twice the rank. Alone, they leave the model's frozen ranks what they are.

    An adapter of a whole network is opened by `?module=`, which names the one to take; without it the error lists them.
    `If-Match` guards it.
    """
    must_be(media_type(request), [SAFETENSORS.media_type])
    check = etags.must_match(request)
    spec = engine.registry.get(model_id).spec
    body = await read(request, settings.binary_body_mib)
    model = await stored(lambda: engine.adapters.adopt(model_id, peft.loaded(body, spec, module), check))
    return reply(views.of_model(model, durable=engine.store.durable), headers={"ETag": etags.of_model(model)})


@router.get(
    "/models/{model_id}/merged",
    operation_id="get_merged",
    summary="A model as one plain layer",
    response_class=Response,
    responses={
        200: {**describe.binary("weight (out, in) and bias (out,)", *FILE_TYPES), "headers": HEADERS},
        304: {"description": "the client has it"},
        **describe.problems(*REFUSALS, VersionNotFound, Validation),
    },
    openapi_extra=describe.condition("If-None-Match"),
)
async def get_merged(
    model_id: ModelIdPath, request: Request, engine: EngineOf, version: VersionQuery = None
) -> Response:
    """The weight W + s·B A and the bias, in float32, for `torch.nn.Linear.load_state_dict`.

    With `use_dora` its rows have the lengths of the magnitudes. Of several layers each name has its layer's place
    before it.
    """
    kind = accepted(request, FILE_TYPES)
    model = engine.registry.get(model_id)

    def work() -> tuple[Model, bytes]:
        model, tensors = engine.adapters.merged(model_id, version)
        return model, safetensors.dump(tensors)

    # A product of rank r costs as many multiplications as r layers have numbers.
    model, body = await read_at(version, model.spec.base_bytes * model.spec.rank, work)
    return file(request, body, kind, model)
