"""One forward over HTTP, from bytes to bytes: plain ASGI, ahead of the framework, which takes longer than the product.

The router has an entry for it all the same, so that `/openapi.json` describes it.
"""

import re
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.types import Receive, Scope

from service.api import problems
from service.api.accept import accept_of, codec_out
from service.api.bodies import MIB, codec_in, received
from service.api.deps import awaited, soon
from service.api.faults import from_pydantic
from service.api.intake import is_small
from service.api.query import must_be_known
from service.codecs.codec import Answer, Array, Codec
from service.codecs.json import JSON
from service.engine import Engine
from service.errors import ServiceError
from service.ids import MODEL_ID
from service.schemas.fields import Number
from service.settings import Settings

PATH = re.compile(rf"/models/(?P<model_id>{MODEL_ID.strip('^$')})/forward")
ROUTE = "/models/{model_id}/forward"

NUMBER: TypeAdapter[int] = TypeAdapter(Number)

# What is decoded and encoded on the spot takes about a millisecond at most.
QUICK_BYTES = 2**19
SPOT_BYTES = 2**15
SPOT_OUTPUTS = 2**14

Reply = tuple[int, list[tuple[bytes, bytes]], bytes]  # status, headers, body


class Forward:
    """Answers `POST /models/{model_id}/forward`."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._wait_seconds = settings.forward_wait_ms / 1_000
        self._json_bytes, self._binary_bytes = settings.json_body_mib * MIB, settings.binary_body_mib * MIB

    async def __call__(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Reply:
        """What is to be sent for a request with these headers to the model that `path_params` names."""
        try:
            version, media_type, content = await self._answered(scope, headers, receive)
        except ServiceError as error:
            refused = problems.response(error, Request(scope))
            return refused.status_code, refused.raw_headers, bytes(refused.body)
        return (
            200,
            [
                (b"content-length", b"%d" % len(content)),
                (b"content-type", media_type.encode()),
                (b"x-model-version", b"%d" % version),
            ],
            content,
        )

    async def _answered(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> tuple[int, str, bytes]:
        """The version that answered, and its answer."""
        find, model_id = self._engine.registry.get, scope["path_params"]["model_id"]
        known = find(model_id)  # before anything is read
        number = version_of(scope["query_string"]) if scope["query_string"] else None
        reader = codec_in(headers.get(b"content-type", b"").decode("latin-1"))
        writer = codec_out(accept_of(scope), reader)
        if not is_small(headers):
            self._engine.forwards.must_begin(known, self._wait_seconds)
        body = await received(headers, receive, self._json_bytes if reader is JSON else self._binary_bytes)
        model = find(model_id)  # which may have gone meanwhile
        x = quickly(reader, body, model.spec.in_features)
        if x is None:
            x = await soon(lambda: reader.decode(body, model.spec.in_features), self._wait_seconds, receive)
        answer = await run(self._engine, model_id, x, self._wait_seconds, receive, number)
        if answer.outputs.size <= SPOT_OUTPUTS:
            content = writer.encode(answer)
        else:
            content = await soon(lambda: writer.encode(answer), self._wait_seconds, receive)
        return answer.model_version, writer.media_type, content


async def run(
    engine: Engine, model_id: str, x: Array, wait_seconds: float, receive: Receive, number: int | None = None
) -> Answer:
    """The model's outputs for x: on the spot where that holds nobody up, else from a thread.

    Args:
        number: of the version that is to answer; by default the current one.

    Raises:
        what `Registry.loaded`, `Forwards.run`, `Forwards.submit` and `deps.awaited` raise
    """
    registry, forwards = engine.registry, engine.forwards
    model = registry.at_hand(model_id)
    if model is None or number not in (None, model.version):
        model = await soon(lambda: registry.loaded(model_id, number), wait_seconds, receive)
    if forwards.on_the_spot(model, x):
        return forwards.run(model, x)
    outputs = forwards.submit(model, x, wait_seconds)
    return forwards.answer(model, x, await awaited(outputs, wait_seconds, receive))


def version_of(query: bytes) -> int | None:
    """The version that a query asks for; None where it asks for none.

    Raises:
        Validation: for what is no whole number, and for another parameter.
    """
    parameters = QueryParams(query)
    must_be_known(parameters, ["version"])
    given = parameters.get("version")
    return None if given is None else number_of(given, "version")


def number_of(given: str, name: str) -> int:
    """The whole number that a parameter or header of this name gives.

    Raises:
        Validation: for what is none.
    """
    try:
        return NUMBER.validate_python(given)
    except ValidationError as error:
        raise from_pydantic([{**fault, "loc": (name,)} for fault in error.errors(include_url=False)]) from None


def quickly(reader: Codec, body: bytes | bytearray, in_features: int) -> Array | None:
    """The inputs, where reading them holds nobody up."""
    if len(body) <= SPOT_BYTES:
        return reader.decode(body, in_features)
    return reader.quick(body, in_features) if len(body) <= QUICK_BYTES else None
