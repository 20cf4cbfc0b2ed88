"""The connection to a service: it sends calls, again where that helps, and reads what comes back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx

from service import __version__
from service.client import answers, retries
from service.client.answers import Page
from service.client.calls import Call, get
from service.client.problems import Unreachable, refusal
from service.codecs.safetensors import Tensors

T = TypeVar("T")


class AsyncConnection:
    """Where the service is, and how it is spoken to.

    Args:
        headers: sent with every request.
        http_client: used instead of one of its own, and left open.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: float | None,
        max_retries: int,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self.url, self.timeout, self.max_retries = url.rstrip("/"), timeout, max_retries
        self._headers = {"User-Agent": f"lora-service/{__version__}", **headers}
        self._http, self._owned = http_client or httpx.AsyncClient(), http_client is None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._owned:
            await self._http.aclose()

    async def send(self, call: Call) -> httpx.Response:
        """The answer to a call.

        Raises:
            Problem: where the service refuses.
            Unreachable: where it does not answer.
        """
        return await self._answer(call, stream=False)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[httpx.Response]:
        """The answer to a call, whose body is still to be read.

        Raises:
            Problem, Unreachable: likewise.
        """
        answer = await self._answer(call, stream=True)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def read(self, kind: type[T], call: Call) -> T:
        """The answer to a call as a value of this type."""
        return answers.read(kind, await self.send(call), context=self)

    async def tensors(self, call: Call) -> Tensors:
        """The tensors of the file that answers a call."""
        return answers.tensors(await self.send(call))

    async def pages(self, kind: type[Page[T]], path: str, **filters: str | None) -> AsyncIterator[T]:
        """The items of a list, each page of which is asked for when it is needed."""
        cursor = None
        while True:
            page = await self.read(kind, get(path, cursor=cursor, **filters))
            for item in page.items:
                yield item
            if (cursor := page.next_cursor) is None:
                return

    def unreachable(self, error: Exception) -> Unreachable:
        """That the service does not answer, and what was heard instead."""
        return Unreachable(f"{self.url} does not answer: {str(error) or type(error).__name__}")

    async def _answer(self, call: Call, *, stream: bool) -> httpx.Response:
        tried = 0
        outcome = await self._try(call, stream=stream)
        while (seconds := retries.pause(call, outcome, tried, self.max_retries)) is not None:
            await asyncio.sleep(seconds)
            tried += 1
            outcome = await self._try(call, stream=stream)
        if isinstance(outcome, httpx.RequestError):
            raise self.unreachable(outcome) from outcome
        if not outcome.is_success and not retries.gone(call, outcome, tried):
            raise refusal(outcome)
        return outcome

    async def _try(self, call: Call, *, stream: bool) -> retries.Outcome:
        """What comes of sending a call once; what is no success has been read to its end."""
        try:
            request = self._http.build_request(
                call.method,
                self.url + call.path,
                params=call.params,
                headers={**self._headers, **call.headers},
                content=call.content,
                timeout=httpx.Timeout(self.timeout, read=self.timeout and self.timeout + call.wait_seconds),
            )
            answer = await self._http.send(request, stream=stream)
            if not answer.is_success:
                await answer.aread()
        except httpx.InvalidURL as error:
            return httpx.UnsupportedProtocol(str(error))
        except httpx.RequestError as error:
            return error
        return answer
