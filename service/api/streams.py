"""Open event streams, counted: each holds a connection, so there is a limit to them."""

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.api.sse import MEDIA_TYPE
from service.errors import TemporaryReducedCapacity


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

    async def counted() -> AsyncIterator[bytes]:
        state.streams += 1
        try:
            async for frame in frames:
                yield frame
        finally:
            state.streams -= 1

    headers = {"Cache-Control": "no-store"}
    if request.state.head:  # its answer has no body, so it would never end
        return Response(media_type=MEDIA_TYPE, headers=headers)
    return StreamingResponse(counted(), media_type=MEDIA_TYPE, headers=headers)
