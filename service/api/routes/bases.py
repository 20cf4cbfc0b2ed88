"""Bring frozen layers of one's own, which any number of models may stand on."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe, views
from service.api.accept import JsonRoute, accepted
from service.api.bodies import media_type, must_be, read
from service.api.deps import EngineOf, SettingsOf, in_thread, stored
from service.api.once import IdempotencyKey, Once
from service.api.paging import CursorQuery, LimitQuery, OrderQuery, page
from service.api.replies import FILE_TYPES, file, listed, reply
from service.codecs import layer
from service.codecs.safetensors import SAFETENSORS
from service.errors import (
    BadCursor,
    BadSafetensors,
    BaseBusy,
    BaseNotFound,
    CapacityExhausted,
    LimitExceeded,
    NonFinite,
    NotAcceptable,
    NotFound,
    ShapeMismatch,
    TooLarge,
    UnsupportedEncoding,
    UnsupportedMediaType,
    Validation,
)
from service.ids import BASE_ID
from service.models.base import BaseRecord
from service.schemas import answers, fields

router = APIRouter(tags=["bases"], route_class=JsonRoute)

BaseIdPath = Annotated[str, Path(pattern=BASE_ID, description="the base's id", examples=[fields.A_BASE_ID])]


@router.post(
    "/bases",
    operation_id="create_base",
    summary="Upload a frozen layer",
    status_code=201,
    response_model=answers.Base,
    responses={
        200: {
            "model": answers.Base,
            "description": "These weights were known",
            "headers": describe.headers("Location"),
        },
        201: {"headers": describe.headers("Location")},
        **describe.problems(
            *describe.ONCE,
            *describe.STORED,
            TooLarge,
            UnsupportedMediaType,
            UnsupportedEncoding,
            NotAcceptable,
            BadSafetensors,
            ShapeMismatch,
            LimitExceeded,
            NonFinite,
            CapacityExhausted,
        ),
    },
    openapi_extra=describe.upload(
        "weight (out, in), and perhaps bias (out,); bfloat16 and float16 are kept", SAFETENSORS.media_type
    ),
)
async def create_base(
    request: Request, engine: EngineOf, settings: SettingsOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """Named by its content: the same weights always get the same id. It stays until it is deleted.

    Models on it are made by `POST /models` with its `base_id`. It is computed in float32, whatever its dtype.
    """
    must_be(media_type(request), [SAFETENSORS.media_type])
    body = await read(request, settings.binary_body_mib)
    new = True

    def answer(record: BaseRecord) -> Response:
        location = {"Location": f"/bases/{record.id}"}
        return reply(views.of_base(engine, record), 201 if new else 200, location)

    with Once(request, idempotency_key, engine.replies, answer) as once:
        if once.earlier is not None:
            return once.again()
        record, new = await stored(lambda: engine.upload_base(layer.loaded(body), once.also))
        return once.told(record)


@router.get(
    "/bases",
    operation_id="list_bases",
    summary="List bases",
    response_model=answers.BasePage,
    responses={200: {"headers": describe.headers("Link")}, **describe.problems(BadCursor, Validation, NotAcceptable)},
)
async def list_bases(
    request: Request, engine: EngineOf, limit: LimitQuery = 50, cursor: CursorQuery = None, order: OrderQuery = "asc"
) -> Response:
    """A page of bases: those that were uploaded, and those that came with a model."""
    some, following = page(engine.registry.bases(), ["bases"], limit, cursor, order)
    return listed(
        request, answers.BasePage(items=[views.of_base(engine, record) for record in some], next_cursor=following)
    )


@router.get(
    "/bases/{base_id}",
    operation_id="get_base",
    summary="One base",
    response_model=answers.Base,
    responses=describe.problems(NotFound, BaseNotFound, NotAcceptable),
)
async def get_base(base_id: BaseIdPath, engine: EngineOf) -> Response:
    """Its sizes, dtype, and how many models stand on it."""
    return reply(views.of_base(engine, engine.registry.base_record(base_id)))


@router.get(
    "/bases/{base_id}/weights",
    operation_id="get_base_weights",
    summary="The tensors of a base, as safetensors",
    response_class=Response,
    responses={
        200: {**describe.binary("weight, bias", *FILE_TYPES), "headers": describe.headers("ETag")},
        304: {"description": "the client has them"},
        **describe.problems(NotFound, BaseNotFound, NotAcceptable, CapacityExhausted),
    },
    openapi_extra=describe.condition("If-None-Match"),
)
async def get_base_weights(base_id: BaseIdPath, request: Request, engine: EngineOf) -> Response:
    """In the dtype in which they came."""
    kind = accepted(request, FILE_TYPES)
    body = await in_thread(lambda: layer.dumped(engine.registry.base(base_id).layer))
    return file(request, body, kind)


@router.delete(
    "/bases/{base_id}",
    operation_id="delete_base",
    summary="Delete a base",
    status_code=204,
    responses=describe.problems(*describe.STORED, NotFound, BaseNotFound, BaseBusy),
)
async def delete_base(base_id: BaseIdPath, engine: EngineOf) -> Response:
    """While models stand on it this is a 409."""
    await stored(lambda: engine.registry.remove_base(base_id))
    return Response(status_code=204)
