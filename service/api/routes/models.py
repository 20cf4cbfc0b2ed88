"""Create, read, change and delete models; take their weights."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe, etags, views
from service.api.accept import JsonRoute, accepted
from service.api.bodies import read_json
from service.api.deps import EngineOf, ModelIdPath, SettingsOf, VersionQuery, read_at, stored, written
from service.api.once import IdempotencyKey, Once
from service.api.paging import CursorQuery, LimitQuery, OrderQuery, page
from service.api.replies import FILE_TYPES, file, listed, reply
from service.codecs import safetensors
from service.errors import (
    BadCursor,
    BaseNotFound,
    CapacityExhausted,
    Fault,
    ModelBusy,
    ModelNotFound,
    NotAcceptable,
    NotFound,
    ShapeMismatch,
    Stale,
    TemporaryReducedCapacity,
    Validation,
    VersionNotFound,
)
from service.ids import BASE_ID
from service.lora.spec import refuse
from service.models.model import Model
from service.schemas import answers, fields
from service.schemas.combine import must_go_beside_combine
from service.schemas.requests import CreateModelRequest, LayerRequest, UpdateModelRequest

router = APIRouter(tags=["models"], route_class=JsonRoute)

EXAMPLES = {
    "64 to 10, rank 4": {"in_features": 64, "out_features": 10, "rank": 4},
    "two layers": {
        "layers": [
            {"in_features": 64, "out_features": 32, "rank": 8, "activation": "relu"},
            {"in_features": 32, "out_features": 10, "rank": 4},
        ],
    },
    "everything set": {
        "in_features": 64,
        "out_features": 10,
        "rank": 8,
        "alpha": 16,
        "use_rslora": True,
        "init": "kaiming",
        "dropout": 0.1,
        "train_bias": True,
        "seed": 42,
        "name": "digits",
        "metadata": {"owner": "me"},
    },
    "the sum of two": {
        "combine": [{"model_id": fields.A_MODEL_ID}, {"model_id": fields.A_MODEL_ID, "weight": -0.5}],
        "rank": 2,
    },
}


@router.post(
    "/models",
    operation_id="create_model",
    summary="Create a LoRA layer",
    status_code=201,
    response_model=answers.Model,
    responses={
        201: {"headers": describe.headers("Location", "ETag")},
        **describe.problems(
            *describe.ONCE,
            *describe.STORED,
            *describe.JSON_BODY,
            NotAcceptable,
            BaseNotFound,
            ModelNotFound,
            ShapeMismatch,
            CapacityExhausted,
            TemporaryReducedCapacity,
        ),
    },
    openapi_extra=describe.body(CreateModelRequest, EXAMPLES),
)
async def create_model(
    request: Request, engine: EngineOf, settings: SettingsOf, idempotency_key: IdempotencyKey = None
) -> Response:
    """A frozen linear layer with a trainable low-rank adapter: y = x Wᵀ + b + scaling·(x Aᵀ) Bᵀ.

    With `combine` its change of the weight is the weighted sum of those of other models on one base: exact, with the
    ranks of all of them, unless these are more than a layer may have or than `rank` asks for. Then it is the nearest
    of that rank, and `combined` says how much was left out.
    """
    asked = await read_json(request, CreateModelRequest, settings.json_body_mib)
    given = asked.model_dump(exclude_unset=True)
    members = given.pop("combine", None)
    if members is None:
        must_have_sizes(asked)
    else:
        must_go_beside_combine(given)

    def answer(model: Model) -> Response:
        headers = {"Location": f"/models/{model.id}", "ETag": etags.of_model(model)}
        return reply(views.of_model(model, durable=engine.store.durable), 201, headers)

    with Once(request, idempotency_key, engine.replies, answer) as once:
        if once.earlier is not None:
            return once.again()
        if members is None:
            return once.told(await stored(lambda: engine.create(**given, also=once.also)))
        pairs = [(member.model_id, member.weight) for member in asked.combine or ()]
        return once.told(await stored(lambda: engine.combine(pairs, **given, also=once.also)))


@router.get(
    "/models",
    operation_id="list_models",
    summary="List models",
    response_model=answers.ModelPage,
    responses={200: {"headers": describe.headers("Link")}, **describe.problems(BadCursor, Validation, NotAcceptable)},
)
async def list_models(
    request: Request,
    engine: EngineOf,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
    order: OrderQuery = "asc",
    name: Annotated[str | None, Query(max_length=256, description="only those of this name")] = None,
    search: Annotated[
        str | None, Query(max_length=256, description="only those whose name or id has this text, in any case")
    ] = None,
    base_id: Annotated[str | None, Query(pattern=BASE_ID, description="only those that stand on this base")] = None,
) -> Response:
    """A page of models."""
    models = [
        model
        for model in engine.registry.all()
        if name in (None, model.name) and _has(model, search) and base_id in (None, *model.base_ids)
    ]
    some, following = page(models, ["models", name, search, base_id], limit, cursor, order)
    items = [views.of_model(model, durable=engine.store.durable) for model in some]
    return listed(request, answers.ModelPage(items=items, next_cursor=following))


@router.get(
    "/models/{model_id}",
    operation_id="get_model",
    summary="One model",
    response_model=answers.Model,
    responses={
        200: {"headers": describe.headers("ETag")},
        304: {"description": "it is as the client knows it"},
        **describe.problems(NotFound, ModelNotFound, NotAcceptable),
    },
    openapi_extra=describe.condition("If-None-Match"),
)
async def get_model(model_id: ModelIdPath, request: Request, engine: EngineOf) -> Response:
    """The model as it is now: its settings, version and parameter counts. `If-None-Match` with its ETag gives 304."""
    model = engine.registry.get(model_id)
    return etags.unless_known(
        request,
        etags.of_model(model),
        lambda tag: reply(views.of_model(model, durable=engine.store.durable), headers=tag),
    )


@router.patch(
    "/models/{model_id}",
    operation_id="update_model",
    summary="Change a model's name or metadata",
    response_model=answers.Model,
    responses=describe.problems(*describe.STORED, *describe.JSON_BODY, NotFound, ModelNotFound, NotAcceptable, Stale),
    openapi_extra={
        **describe.body(UpdateModelRequest, {"rename": {"name": "my adapter", "metadata": {"team": "a"}}}),
        **describe.condition("If-Match"),
    },
)
async def update_model(model_id: ModelIdPath, request: Request, engine: EngineOf, settings: SettingsOf) -> Response:
    """Only the fields sent are changed; `metadata` is replaced as a whole. `If-Match` with another ETag is 412."""
    asked = await read_json(request, UpdateModelRequest, settings.json_body_mib)
    notes = asked.model_dump(exclude_unset=True)
    model = await written(engine, 0, lambda: engine.update(model_id, etags.must_match(request), **notes))
    return reply(views.of_model(model, durable=engine.store.durable), headers={"ETag": etags.of_model(model)})


@router.delete(
    "/models/{model_id}",
    operation_id="delete_model",
    summary="Delete a model",
    status_code=204,
    responses=describe.problems(*describe.STORED, NotFound, ModelNotFound, ModelBusy, Stale, Validation),
    openapi_extra=describe.condition("If-Match"),
)
async def delete_model(
    model_id: ModelIdPath,
    request: Request,
    engine: EngineOf,
    force: Annotated[bool, Query(description="cancel its jobs first")] = False,
) -> Response:
    """Its jobs stay readable. While one is active this is a 409, unless `force` is set. `If-Match` guards it."""
    await stored(lambda: engine.delete(model_id, force=force, check=etags.must_match(request)))
    return Response(status_code=204)


@router.get(
    "/models/{model_id}/weights",
    operation_id="get_weights",
    summary="All tensors of a model, as safetensors",
    response_class=Response,
    responses={
        200: {
            **describe.binary(
                "base.weight, base.bias, lora_A.weight, lora_B.weight, bias, lora_magnitude_vector, "
                "lora_A_init.weight, lora_B_init.weight",
                *FILE_TYPES,
            ),
            "headers": describe.headers("X-Model-Version", "ETag"),
        },
        304: {"description": "the client has them"},
        **describe.problems(
            NotFound, ModelNotFound, VersionNotFound, NotAcceptable, TemporaryReducedCapacity, Validation
        ),
    },
    openapi_extra=describe.condition("If-None-Match"),
)
async def get_weights(
    model_id: ModelIdPath, request: Request, engine: EngineOf, version: VersionQuery = None
) -> Response:
    """float32, under the names PEFT uses; `bias` is the adapter's own copy, where it trains one.

    With `pissa` and `olora`, `lora_A_init.weight` and `lora_B_init.weight` are what A and B began with:
    y = x Wᵀ + b + scaling·((x Aᵀ) Bᵀ - (x A₀ᵀ) B₀ᵀ). Of several layers each name has its layer's place before it.
    """
    media_type = accepted(request, FILE_TYPES)
    model = engine.registry.get(model_id)

    def work() -> tuple[Model, bytes]:
        model, tensors = engine.adapters.weights(model_id, version)
        return model, safetensors.dump(tensors)

    model, body = await read_at(version, model.nbytes + model.spec.base_bytes, work)
    return file(request, body, media_type, model)


def _has(model: Model, text: str | None) -> bool:
    """Whether a model's name or id has a text in it, in capitals or not."""
    return text is None or text.casefold() in f"{model.name or ''}\n{model.id}".casefold()


def must_have_sizes(asked: CreateModelRequest, within: str = "") -> None:
    """Raise Validation unless each layer has its sizes, or a base that has them; `within` points to who asks."""
    if asked.layers is not None:
        _must_leave_to_layers(asked, within)
    of_layers: Sequence[LayerRequest | CreateModelRequest] = asked.layers or [asked]
    for place, layer in enumerate(of_layers):
        missing = [name for name in ("in_features", "out_features") if getattr(layer, name) is None]
        if missing and layer.base_id is None:
            at = f"{within}/layers/{place}" if asked.layers else within
            detail = f"{' and '.join(missing)} must be given, unless base_id names a base that has them"
            raise Validation(detail, *(Fault(f"{at}/{name}", f"{name} is required") for name in missing))


def _must_leave_to_layers(asked: CreateModelRequest, within: str) -> None:
    for name in LayerRequest.model_fields:
        if name in asked.model_fields_set:
            refuse(f"{within[1:]}/{name}".lstrip("/"), f"each of the layers has its own {name}; give it with the layer")
    last = asked.layers[-1] if asked.layers else None
    if last is not None and "activation" in last.model_fields_set:
        place = len(asked.layers or []) - 1
        refuse(f"layers/{place}/activation", "an activation stands between two layers; nothing follows the last")
