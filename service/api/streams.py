"""Open event streams, counted: each holds a connection, so there is a limit to them."""

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import StreamingResponse

from service.api.sse import MEDIA_TYPE
from service.errors import TemporaryReducedCapacity


def stream(request: Request, max_streams: int, frames: AsyncIterator[bytes]) -> StreamingResponse:
    """The frames as a Server-Sent Event stream.

    Raises:
        TemporaryReducedCapacity: when as many streams are open as may be.
    """
    state = request.app.state
    if state.streams >= max_streams:
        raise TemporaryReducedCapacity(
            f"{state.streams} event streams are open, as many as may be (LORA_SSE_STREAMS)", limit=max_streams
        )

    async def counted() -> AsyncIterator[bytes]:
        state.streams += 1
        try:
            async for frame in frames:
                yield frame
        finally:
            state.streams -= 1

    return StreamingResponse(counted(), media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
