"""Choose the type of an answer by what the request accepts (RFC 9110, 12.5.1)."""

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from service.api.query import StrictRoute
from service.codecs.by_type import CODECS
from service.codecs.codec import Codec
from service.codecs.json import JSON
from service.errors import NotAcceptable


class JsonRoute(StrictRoute):
    """A route that refuses a client which takes no JSON before it does anything, where JSON is what it answers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.response_model is None:  # the route answers something else
            return handle

        async def negotiated(request: Request) -> Response:
            accepted(request, [JSON.media_type])
            return await handle(request)

        return negotiated


@lru_cache(256)
def codec_out(accept: str, default: Codec) -> Codec:
    """The codec of the answer: the one that Accept likes best, the request's own where it does not care.

    Raises:
        NotAcceptable
    """
    return CODECS[_preferred(accept, [default.media_type, *CODECS])]


def accepted(request: Request, offered: list[str]) -> str:
    """The offered type that Accept likes best; of equals the first.

    Raises:
        NotAcceptable: when it takes none of them.
    """
    return _preferred(accept_of(request.scope), offered)


def accept_of(scope: Scope) -> str:
    """What a request accepts, however many headers say so (RFC 9110, 5.3); everything where none does."""
    given = [value for name, value in scope["headers"] if name == b"accept"]
    return b",".join(given).decode("latin-1") if given else "*/*"


def _preferred(header: str, offered: list[str]) -> str:
    ranges = [_media_range(part) for part in header.split(",") if part.strip()]

    def quality(offer: str) -> float:
        """What the most specific range that covers the offer gives it."""
        covering = [(_specificity(name), q) for name, q in ranges if _covers(name, offer)]
        return max(covering)[1] if covering else 0.0

    best = max(offered, key=quality)
    if ranges and quality(best) <= 0:
        raise NotAcceptable(f"Accept is {header[:60]}; this route answers {', '.join(dict.fromkeys(offered))}")
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
