"""The versions of a model: list them, and go back to one."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api import describe, etags, views
from service.api.accept import JsonRoute
from service.api.bodies import read_json
from service.api.deps import EngineOf, ModelIdPath, SettingsOf, in_thread, stored
from service.api.once import IdempotencyKey, Once
from service.api.replies import reply
from service.errors import (
    ModelBusy,
    ModelNotFound,
    NotAcceptable,
    NotFound,
    Stale,
    StorageUnavailable,
    TemporaryReducedCapacity,
    VersionNotFound,
)
from service.models.model import Model
from service.schemas import answers
from service.schemas.requests import RollbackRequest
from service.schemas.versions import VersionPage

router = APIRouter(tags=["models"], route_class=JsonRoute)

EXAMPLES = {"as it was created": {"version": 0}}


@router.get(
    "/models/{model_id}/versions",
    operation_id="list_versions",
    summary="List the versions of a model, newest first",
    response_model=VersionPage,
    responses=describe.problems(NotFound, ModelNotFound, NotAcceptable, StorageUnavailable),
)
async def list_versions(model_id: ModelIdPath, engine: EngineOf) -> Response:
    """The current version, as many before it as `LORA_KEEP_VERSIONS` says, and the best.

    `?version=` on a forward and on the files of weights takes one of these; a number never changes its meaning.
    """
    engine.registry.get(model_id)
    return reply(views.of_versions(*await in_thread(lambda: engine.registry.versions(model_id))))


@router.post(
    "/models/{model_id}/rollback",
    operation_id="roll_back",
    summary="Go back to an earlier version",
    response_model=answers.Model,
    responses={
        200: {"headers": describe.headers("ETag")},
        **describe.problems(
            *describe.ONCE,
            *describe.STORED,
            *describe.JSON_BODY,
            NotAcceptable,
            NotFound,
            ModelNotFound,
            VersionNotFound,
            ModelBusy,
            Stale,
            TemporaryReducedCapacity,
        ),
    },
    openapi_extra={**describe.body(RollbackRequest, EXAMPLES, required=False), **describe.condition("If-Match")},
)
async def roll_back(
    model_id: ModelIdPath,
    request: Request,
    engine: EngineOf,
    settings: SettingsOf,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The old weights become the model's next version: by default those of the newest kept before the current one.

    `last_loss` stays that of the last job. `If-Match` guards it.
    """
    engine.registry.get(model_id)
    asked = await read_json(request, RollbackRequest, settings.json_body_mib, optional=True)
    check = etags.must_match(request)

    def answer(model: Model) -> Response:
        return reply(views.of_model(model, durable=engine.store.durable), headers={"ETag": etags.of_model(model)})

    with Once(request, idempotency_key, engine.replies, answer) as once:
        if once.earlier is not None:
            return once.again()
        return once.told(await stored(lambda: engine.adapters.roll_back(model_id, asked.version, check, once.also)))
