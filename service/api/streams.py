"""Open event streams, counted: each holds a connection, so there is a limit to them."""

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.sse import MEDIA_TYPE
from service.errors import TemporaryReducedCapacity


class Counted(StreamingResponse):
    """A stream that is counted for as long as it is sent, however that ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["app"].state
        state.streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            state.streams -= 1


def stream(request: Request, max_streams: int, frames: AsyncIterator[bytes]) -> Response:
    """The frames as a Server-Sent Event stream.

    Raises:
        TemporaryReducedCapacity: when as many streams are open as may be.
    """
    state = request.app.state
    if state.streams >= max_streams:
        raise TemporaryReducedCapacity(
            f"{state.streams} event streams are open, as many as may be (LORA_SSE_STREAMS)",
            reason="streams-full",
            limit=max_streams,
        )

    headers = {"Cache-Control": "no-store"}
    if request.state.head:  # its answer has no body, so it would never end
        return Response(media_type=MEDIA_TYPE, headers=headers)
    return Counted(frames, media_type=MEDIA_TYPE, headers=headers)
