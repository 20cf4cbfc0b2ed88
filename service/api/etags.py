"""Which state of a thing a client has, and whether that is still its state (RFC 9110, 13)."""

import hashlib
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from service.errors import Stale
from service.models.model import Model


def of_model(model: Model) -> str:
    """The tag of a model's state, which changes with its revision."""
    return f'"{model.revision}"'


def of_bytes(content: bytes) -> str:
    """The tag of a file: its SHA-256."""
    return f'"{hashlib.sha256(content).hexdigest()}"'


def unless_known(request: Request, tag: str, answer: Callable[[Mapping[str, str]], Response]) -> Response:
    """The answer with its tag, or 304 where If-None-Match says that the client has it."""
    headers = {"ETag": tag}
    return Response(status_code=304, headers=headers) if _names(request, "if-none-match", tag) else answer(headers)


def must_match(request: Request) -> Callable[[Model], None]:
    """What raises Stale for a model in another state than If-Match names, where there is such a header."""

    def check(model: Model) -> None:
        if "if-match" in request.headers and not _names(request, "if-match", of_model(model)):
            given = ", ".join(request.headers.getlist("if-match"))[:60]
            raise Stale(
                f"If-Match is {given}; model {model.id} is at {of_model(model)}, so read it again and decide anew"
            )

    return check


def _names(request: Request, header: str, tag: str) -> bool:
    given = [part.strip().removeprefix("W/") for value in request.headers.getlist(header) for part in value.split(",")]
    return tag in given or "*" in given
