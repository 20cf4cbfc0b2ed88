"""Every limit in force: those that a setting moves, and those that are fixed."""

from fastapi import APIRouter
from starlette.responses import Response

from service.api import describe
from service.api.accept import JsonRoute
from service.api.deps import EngineOf, SettingsOf
from service.api.faults import MAX_FAULTS
from service.api.paging import MAX_PAGE
from service.api.replies import reply
from service.api.routes.train import MAX_WAIT_SECONDS
from service.api.server import MAX_CHUNKS, MAX_HEAD_BYTES, MAX_URL_BYTES
from service.codecs.codec import MAX_DIMENSIONS, MAX_ELEMENTS, MAX_LISTS
from service.codecs.json import MAX_DEPTH, MAX_FIELDS, MAX_VALUES
from service.codecs.safetensors import MAX_HEADER_BYTES
from service.engine.decomposing import MAX_WORK
from service.errors import NotAcceptable
from service.lora.spec import MAX_FEATURES, MAX_RANK, MAX_SEED, MAX_SETTING
from service.schemas import answers
from service.schemas.fields import MAX_PAIRS, MAX_TEXT
from service.schemas.requests import MAX_COMBINED, MAX_ITEMS
from service.schemas.sweeps import MAX_MEMBERS
from service.settings import PREFIX, Settings
from service.training.cost import OPTIMUM_FEATURES
from service.training.plan import MAX_EPOCHS
from service.training.sources import MAX_SAMPLES

router = APIRouter(tags=["system"], route_class=JsonRoute)

FIXED = {
    "features": (MAX_FEATURES, "features", "in_features and out_features of a layer"),
    "rank": (MAX_RANK, "rank", "rank of an adapter, which is also at most min(in_features, out_features)"),
    "epochs": (MAX_EPOCHS, "epochs", "epochs of a job"),
    "samples": (MAX_SAMPLES, "rows", "rows of generated data"),
    "seed": (MAX_SEED, "number", "a seed: what every reader of JSON holds exactly"),
    "settings": (MAX_SETTING, "number", "lr, alpha, weight_decay, noise and other settings of training"),
    "combined_members": (MAX_COMBINED, "models", "models that are combined into one"),
    "decomposition_work": (
        MAX_WORK,
        "multiplications",
        "ranks² · (in_features + out_features) of an analysis or a sum",
    ),
    "sweep_members": (MAX_MEMBERS, "jobs", "jobs of one sweep"),
    "optimum_features": (OPTIMUM_FEATURES, "features", "in_features up to which a run by rows reports its optimum"),
    "text_characters": (MAX_TEXT, "characters", "name, and each text of metadata"),
    "metadata_pairs": (MAX_PAIRS, "pairs", "pairs of metadata"),
    "wait_seconds": (MAX_WAIT_SECONDS, "seconds", "Prefer: wait of a training"),
    "safetensors_header_bytes": (MAX_HEADER_BYTES, "bytes", "header of a safetensors file"),
    "json_depth": (MAX_DEPTH, "levels", "nesting of JSON"),
    "json_lists": (MAX_LISTS, "lists", "lists and objects of a JSON body, such as rows of a tensor"),
    "json_fields": (MAX_FIELDS, "fields", "fields of all objects of a JSON body"),
    "json_values": (MAX_VALUES, "values", "values of a JSON body: all its tensors and fields together"),
    "json_elements": (MAX_ELEMENTS, "numbers", "numbers of a tensor in JSON"),
    "mixed_items": (MAX_ITEMS, "items", "items of one forward for many models"),
    "tensor_dimensions": (MAX_DIMENSIONS, "dimensions", "dimensions of a tensor"),
    "page_items": (MAX_PAGE, "items", "items of one page of a list"),
    "errors_listed": (MAX_FAULTS, "errors", "faults listed in one problem"),
    "header_bytes": (MAX_HEAD_BYTES, "bytes", "request line and headers"),
    "url_bytes": (MAX_URL_BYTES, "bytes", "URL of a request"),
    "chunks": (MAX_CHUNKS, "chunks", "chunks of a body sent without its length"),
}


@router.get(
    "/limits",
    operation_id="get_limits",
    summary="Every limit in force, with its unit",
    response_model=answers.Limits,
    responses=describe.problems(NotAcceptable),
)
async def get_limits(settings: SettingsOf, engine: EngineOf) -> Response:
    """What a request may ask for, and which setting moves it."""
    return reply(answers.Limits(durable=engine.store.durable, limits={**_settable(settings), **_fixed()}))


def _settable(settings: Settings) -> dict[str, answers.Limit]:
    """The settings that have a unit."""
    return {
        name: answers.Limit(
            value=getattr(settings, name),
            unit=str(field.json_schema_extra["unit"]),
            description=str(field.description),
            setting=f"{PREFIX}{name}".upper(),
        )
        for name, field in Settings.model_fields.items()
        if isinstance(field.json_schema_extra, dict)
    }


def _fixed() -> dict[str, answers.Limit]:
    return {
        name: answers.Limit(value=value, unit=unit, description=description, setting=None)
        for name, (value, unit, description) in FIXED.items()
    }
