"""Read what a request carries, within limits and by its Content-Type."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.api.deps import off_loop
from service.api.faults import from_pydantic
from service.codecs import CODECS
from service.codecs.codec import Codec
from service.codecs.json import JSON, parse
from service.errors import TooLarge, UnsupportedEncoding, UnsupportedMediaType

MIB = 2**20

T = TypeVar("T", bound=BaseModel)


def media_type(request: Request) -> str:
    """The Content-Type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read(request: Request, max_mib: int) -> bytearray:
    """The whole body.

    Raises:
        UnsupportedEncoding: for a compressed body.
        TooLarge: at the first byte beyond the limit, or at once where Content-Length says so.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedEncoding(f"the Content-Encoding is {encoding[:40]}; send the body as it is")
    max_bytes = max_mib * MIB
    claimed = request.headers.get("content-length", "0")
    if claimed.isdecimal() and int(claimed) > max_bytes:
        raise _too_large(claimed[:20], max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(f"more than {max_bytes}", max_bytes)
    return body


async def read_json(request: Request, schema: type[T], max_mib: int, *, optional: bool = False) -> T:
    """The body as an instance of its schema; with `optional`, no body at all stands for `{}`.

    Raises:
        UnsupportedMediaType, MalformedJson, TooDeep, Validation and its kinds, as well as what `read` raises.
    """
    body = await read(request, max_mib)
    if optional and not body:
        return schema()
    must_be(media_type(request), [JSON.media_type])
    return await off_loop(len(body), lambda: validated(body, schema))


def validated(body: bytes | bytearray, schema: type[T]) -> T:
    """The JSON text as an instance of its schema."""
    try:
        return schema.model_validate(parse(body))
    except ValidationError as error:
        raise from_pydantic(error.errors(include_url=False), schema) from None


def must_be(given: str, allowed: list[str]) -> None:
    """Raise UnsupportedMediaType unless the type is one of those allowed."""
    if given not in allowed:
        accept = ", ".join(allowed)
        detail = f"the Content-Type is {given[:60]}" if given else "there is no Content-Type"
        raise UnsupportedMediaType(f"{detail}; this route reads {accept}", accept=accept)


def codec_in(request: Request) -> Codec:
    """The codec of a tensor's Content-Type."""
    given = media_type(request)
    must_be(given, list(CODECS))
    return CODECS[given]


def _too_large(size: str, max_bytes: int) -> TooLarge:
    return TooLarge(f"the body has {size} bytes; at most {max_bytes} are read", limit=max_bytes)
