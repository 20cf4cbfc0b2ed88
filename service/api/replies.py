"""Answers: a schema as JSON, and the headers that go with it."""

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.api import etags
from service.codecs.json import JSON
from service.codecs.safetensors import SAFETENSORS
from service.models.model import Model
from service.schemas.answers import BasePage, ModelPage
from service.schemas.training import DatasetPage, JobPage, SweepPage

# What a file of tensors may be asked for as.
FILE_TYPES = [SAFETENSORS.media_type, "application/octet-stream"]


def reply(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The body as JSON."""
    return Response(body.model_dump_json(), status, headers, JSON.media_type)


def file(request: Request, body: bytes, kind: str, model: Model | None = None) -> Response:
    """A file under its checksum, or 304 where the client has it; of a model, with the version that it is of."""
    version = {} if model is None else {"X-Model-Version": str(model.version)}
    return etags.unless_known(
        request, etags.of_bytes(body), lambda tag: Response(body, media_type=kind, headers={**version, **tag})
    )


def listed(request: Request, body: ModelPage | BasePage | JobPage | DatasetPage | SweepPage) -> Response:
    """A page of a list, with a Link (RFC 8288) to the next one."""
    if body.next_cursor is None:
        return reply(body)
    following = request.url.include_query_params(cursor=body.next_cursor)
    return reply(body, headers={"Link": f'<{following.path}?{following.query}>; rel="next"'})
