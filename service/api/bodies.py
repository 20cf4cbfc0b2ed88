"""Read what a request carries, within limits and by its Content-Type."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from service.api.deps import off_loop
from service.api.faults import from_pydantic
from service.codecs.by_type import CODECS
from service.codecs.codec import Codec
from service.codecs.json import JSON, parse
from service.errors import TooLarge, UnsupportedEncoding, UnsupportedMediaType

MIB = 2**20

T = TypeVar("T", bound=BaseModel)


def media_type(request: Request) -> str:
    """The Content-Type without its parameters."""
    return bare(request.headers.get("content-type", ""))


def bare(content_type: str) -> str:
    """A media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


async def read(request: Request, max_mib: int) -> bytes | bytearray:
    """The whole body; raises what `received` raises.

    Where an Idempotency-Key is given, `request.state.fingerprint` then tells this request from others.
    """
    body = await received(dict(request.scope["headers"]), request.receive, max_mib * MIB)
    if "idempotency-key" in request.headers:
        request.state.fingerprint = hashlib.sha256(request.url.query.encode() + b"\n" + body).hexdigest()
    return body


async def received(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int) -> bytes | bytearray:
    """The whole body of a request whose head is known.

    Raises:
        UnsupportedEncoding: for a compressed body.
        TooLarge: at the first byte beyond the limit, or at once where Content-Length says so.
        ClientDisconnect: when the client leaves before it has sent all.
    """
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
    if encoding != "identity":
        raise UnsupportedEncoding(f"the Content-Encoding is {encoding[:40]}; send the body as it is")
    claimed = headers.get(b"content-length", b"0").decode("latin-1")
    if claimed.isdecimal() and int(claimed) > max_bytes:
        raise too_large(claimed[:20], max_bytes)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        if len(body) + len(piece) > max_bytes:
            raise too_large(f"more than {max_bytes}", max_bytes)
        if not message.get("more_body", False):
            return body + piece if body else piece  # most bodies come in one piece, which is not copied
        body += piece


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


@lru_cache(256)
def codec_in(content_type: str) -> Codec:
    """The codec of a tensor's Content-Type.

    Raises:
        UnsupportedMediaType
    """
    given = bare(content_type)
    must_be(given, list(CODECS))
    return CODECS[given]


def too_large(size: str, max_bytes: int) -> TooLarge:
    """What is said of a body, or a part of one, that has too many bytes."""
    return TooLarge(f"the body has {size} bytes; at most {max_bytes} are read", limit=max_bytes)
