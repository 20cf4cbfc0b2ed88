"""Do what a request asks for once, however often it is sent with the same Idempotency-Key.

The draft draft-ietf-httpapi-idempotency-key-header names the header. A key counts for one caller, method and address.
"""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Annotated, Generic, Protocol, Self, TypeVar

from fastapi import Header
from starlette.requests import Request
from starlette.responses import Response

from service.errors import BadIdempotencyKey, ServiceError
from service.models.replies import Replies, Reply
from service.models.store import Change

MAX_KEY = 255
REPLAYED = "Idempotency-Replayed"

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="makes a repeat of this request get its first answer, and change nothing, for 24 hours",
        # Not checked by FastAPI, which would call a wrong one a validation error.
        json_schema_extra={"pattern": f'^(?!"{{1,2}}$)[!-~]([ -~]{{0,{MAX_KEY - 2}}}[!-~])?$'},
    ),
]


class Made(Protocol):
    """What a request makes has an id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Made)


class Once(Generic[T]):
    """A request whose body has been read. `earlier` is what it was answered before; None where it is new.

    `also` is what the store is to be told together with what the request makes, and `told` makes its answer the one
    that repeats get. A request without a key, or one that fails, leaves nothing behind.

    Args:
        key: the header, where there is one.
        answer: what a request is told of what it made.

    Raises:
        BadIdempotencyKey, IdempotencyMismatch, IdempotencyInFlight
    """

    def __init__(self, request: Request, key: str | None, known: Replies, answer: Callable[[T], Response]) -> None:
        self._known, self._answer = known, answer
        self._key = None if key is None else _scoped(request, key)
        self._fingerprint = getattr(request.state, "fingerprint", "")
        self._reply: Reply | None = None
        self.earlier = None if self._key is None else known.begin(self._key, self._fingerprint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._key is not None and self.earlier is None:
            refused = isinstance(error, ServiceError)  # then nothing was made, though the answer was ready
            self._known.end(self._key, None if refused else self._reply)

    def also(self, made: T) -> Iterator[Change]:
        """What is to be stored with what was made."""
        if self._key is not None:
            yield from self._known.kept(self._key, self._reply_to(made))

    def told(self, made: T) -> Response:
        """The answer, which every repeat gets too."""
        answer = self._answer(made)
        if self._key is not None:
            self._reply = self._reply_to(made)
        return answer

    def again(self, now: Callable[[str], T] | None = None) -> Response:
        """The earlier answer, byte for byte; where `now` finds what was made by its id, an answer on that as it is."""
        reply = self.earlier
        assert reply is not None, "asked only where there is one"
        if now is None:
            return Response(reply.body, reply.status, {**reply.headers, REPLAYED: "true"})
        answer = self._answer(now(reply.made))
        answer.headers[REPLAYED] = "true"
        return answer

    def _reply_to(self, made: T) -> Reply:
        if self._reply is None:
            answer = self._answer(made)
            headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
            self._reply = Reply(self._fingerprint, made.id, answer.status_code, headers, bytes(answer.body))
        return self._reply


def _scoped(request: Request, given: str) -> str:
    bare = given.strip().removeprefix('"').removesuffix('"')
    if not 0 < len(bare) <= MAX_KEY or not bare.isascii() or not bare.isprintable():
        raise BadIdempotencyKey(f"the Idempotency-Key has {len(bare)} characters; it must be 1 to {MAX_KEY} of ASCII")
    caller = request.state.caller.name
    return f"{caller and caller + ' '}{request.method} {request.url.path}\n{bare}"
