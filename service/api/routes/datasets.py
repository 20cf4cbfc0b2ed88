"""Upload rows to train on, in as many pieces as it takes."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe, views
from service.api.accept import JsonRoute
from service.api.bodies import media_type, must_be, read
from service.api.deps import DatasetIdPath, EngineOf, SettingsOf, in_thread, stored, written
from service.api.once import IdempotencyKey, Once
from service.api.paging import CursorQuery, LimitQuery, OrderQuery, page
from service.api.replies import listed, reply
from service.codecs import safetensors
from service.codecs.safetensors import SAFETENSORS, Tensors
from service.errors import (
    BadCursor,
    BadSafetensors,
    CapacityExhausted,
    DatasetBusy,
    DatasetNotFound,
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
from service.models.dataset import Dataset
from service.schemas import training
from service.settings import Settings

router = APIRouter(tags=["datasets"], route_class=JsonRoute)

UPLOAD = describe.upload(
    "tensors x (n, in), y (n, out) or (n,) integer classes, and perhaps weight (n,); or the moments of rows that stay "
    "where they are: counts (3,) = their number, the sum of their weights w and Σ w |y - y_mean|², x_mean (in,), "
    "y_mean (out,), xx (in, in) = Σ w (x - x_mean)(x - x_mean)ᵀ and xy (in, out) = Σ w (x - x_mean)(y - y_mean)ᵀ",
    SAFETENSORS.media_type,
)
REFUSALS = (
    TooLarge,
    UnsupportedMediaType,
    UnsupportedEncoding,
    NotAcceptable,
    Validation,
    LimitExceeded,
    ShapeMismatch,
    NonFinite,
    BadSafetensors,
    CapacityExhausted,
)


@router.post(
    "/datasets",
    operation_id="create_dataset",
    summary="Upload a data set",
    status_code=201,
    response_model=training.Dataset,
    responses={
        201: {"headers": describe.headers("Location")},
        **describe.problems(*describe.ONCE, *describe.STORED, *REFUSALS),
    },
    openapi_extra=UPLOAD,
)
async def create_dataset(
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    keep_rows: Annotated[bool, Query(description="false: only the moments stay, whatever the number of rows")] = True,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Rows for `"data": {"kind": "dataset", "id": …}`. More of them can be appended.

    Their second moments are gathered as they arrive, and full-batch mse needs nothing else: without `keep_rows` a data
    set larger than memory can be trained on. Who has gathered them elsewhere sends them alone, as float64.
    """
    tensors = await uploaded(request, settings)

    def answer(dataset: Dataset) -> Response:
        location = {"Location": f"/datasets/{dataset.id}"}
        return reply(views.of_dataset(dataset, durable=engine.store.durable), 201, location)

    with Once(request, idempotency_key, engine.replies, answer) as once:
        if once.earlier is not None:
            return once.again()
        upload = engine.datasets.upload
        return once.told(await stored(lambda: upload(tensors, keep_rows=keep_rows, also=once.also)))


@router.post(
    "/datasets/{dataset_id}/rows",
    operation_id="append_rows",
    summary="Append rows to a data set",
    response_model=training.Dataset,
    responses=describe.problems(*describe.ONCE, *describe.STORED, NotFound, DatasetNotFound, *REFUSALS),
    openapi_extra=UPLOAD,
)
async def append_rows(
    dataset_id: DatasetIdPath,
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Tensors of the same kind as the first ones; to a data set without rows, moments too.

    Jobs that were accepted before do not see them.
    """
    engine.datasets.get(dataset_id)
    tensors = await uploaded(request, settings)

    def answer(dataset: Dataset) -> Response:
        return reply(views.of_dataset(dataset, durable=engine.store.durable))

    with Once(request, idempotency_key, engine.replies, answer) as once:
        if once.earlier is not None:
            return once.again()
        return once.told(await stored(lambda: engine.datasets.append(dataset_id, tensors, once.also)))


@router.get(
    "/datasets",
    operation_id="list_datasets",
    summary="List data sets",
    response_model=training.DatasetPage,
    responses={200: {"headers": describe.headers("Link")}, **describe.problems(BadCursor, Validation, NotAcceptable)},
)
async def list_datasets(
    request: Request, engine: EngineOf, limit: LimitQuery = 50, cursor: CursorQuery = None, order: OrderQuery = "asc"
) -> Response:
    """A page of data sets."""
    some, following = page(engine.datasets.all(), ["datasets"], limit, cursor, order)
    items = [views.of_dataset(dataset, durable=engine.store.durable) for dataset in some]
    return listed(request, training.DatasetPage(items=items, next_cursor=following))


@router.get(
    "/datasets/{dataset_id}",
    operation_id="get_dataset",
    summary="One data set",
    response_model=training.Dataset,
    responses=describe.problems(NotFound, DatasetNotFound, NotAcceptable),
)
async def get_dataset(dataset_id: DatasetIdPath, engine: EngineOf) -> Response:
    """What it holds: shapes, rows, memory."""
    return reply(views.of_dataset(engine.datasets.get(dataset_id), durable=engine.store.durable))


@router.delete(
    "/datasets/{dataset_id}",
    operation_id="delete_dataset",
    summary="Delete a data set",
    status_code=204,
    responses=describe.problems(*describe.STORED, NotFound, DatasetNotFound, DatasetBusy),
)
async def delete_dataset(dataset_id: DatasetIdPath, engine: EngineOf) -> Response:
    """While a job that has not ended needs it, this is a 409."""
    await written(engine, 0, lambda: engine.delete_dataset(dataset_id))
    return Response(status_code=204)


async def uploaded(request: Request, settings: Settings) -> Tensors:
    """The tensors of a safetensors body."""
    must_be(media_type(request), [SAFETENSORS.media_type])
    body = await read(request, settings.binary_body_mib)
    return await in_thread(lambda: safetensors.load(body, integers=["y"]))
