"""Read what a request carries, within limits and by its Content-Type; choose the type of the answer by Accept."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.api.deps import off_loop
from service.api.faults import field_names, from_pydantic
from service.codecs import CODECS
from service.codecs.codec import Codec
from service.codecs.json import JSON, parse
from service.errors import Fault, NotAcceptable, TooLarge, UnsupportedEncoding, UnsupportedMediaType, Validation

MIB = 2**20
MAX_FIELDS = 64  # of any object in a request

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
    value = parse(body)
    must_be_small(value)
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise from_pydantic(found, field_names(schema)) from None


def must_be_small(value: object) -> None:
    """Raise Validation for an object with far too many fields: pydantic would describe each of them."""
    if isinstance(value, dict):
        if len(value) > MAX_FIELDS:
            raise Validation(f"an object has {len(value)} fields; at most {MAX_FIELDS} are read", Fault("", "too many"))
        for inner in value.values():
            must_be_small(inner)


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


def codec_out(request: Request, default: Codec) -> Codec:
    """The codec of the answer: the one that Accept likes best, the request's own where it does not care."""
    return CODECS[accepted(request, [default.media_type, *CODECS])]


def accepted(request: Request, offered: list[str]) -> str:
    """The offered type that Accept (RFC 9110, 12.5.1) likes best; of equals the first.

    Raises:
        NotAcceptable: when it takes none of them.
    """
    header = request.headers.get("accept", "*/*")
    ranges = [_media_range(part) for part in header.split(",") if part.strip()]

    def quality(offer: str) -> float:
        """What the most specific range that covers the offer gives it."""
        covering = [(_specificity(name), q) for name, q in ranges if _covers(name, offer)]
        return max(covering)[1] if covering else 0.0

    best = max(offered, key=quality)
    if ranges and quality(best) <= 0:
        raise NotAcceptable(f"Accept is {header[:80]}; this route answers {', '.join(dict.fromkeys(offered))}")
    return best


def _media_range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    q = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return name, float(q)
    except ValueError:
        return name, 1.0


def _specificity(name: str) -> int:
    return 0 if name == "*/*" else 1 if name.endswith("/*") else 2


def _covers(name: str, offer: str) -> bool:
    return name in ("*/*", offer) or (name.endswith("/*") and offer.startswith(name[:-1]))


def _too_large(size: str, max_bytes: int) -> TooLarge:
    return TooLarge(f"the body has {size} bytes; at most {max_bytes} are read", limit=max_bytes)
