"""The asynchronous client, driven from plain code: what a test does with one twin it does with the other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from inspect import isawaitable
from typing import Any

from service.client import AsyncClient, AsyncJob


class Driven:
    """An object of the asynchronous client, whose methods wait for what they begin."""

    def __init__(self, it: object, runner: asyncio.Runner) -> None:
        self._it, self._runner = it, runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._it, "aclose" if name == "close" else name)
        if not callable(found):
            return found

        def call(*given: object, **named: object) -> Any:
            return self._settled(found(*(bare(each) for each in given), **{k: bare(v) for k, v in named.items()}))

        return call

    def __enter__(self) -> "Driven":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._it).replace("Async", "", 1)

    def _settled(self, given: Any) -> Any:
        if isinstance(given, AsyncIterator):
            return self._listed(given)
        if isawaitable(given):
            given = self._runner.run(awaited(given))
        return Driven(given, self._runner) if isinstance(given, AsyncJob) else given

    def _listed(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        while (item := self._runner.run(awaited(anext(items, self)))) is not self:
            yield self._settled(item)


async def awaited(given: Any) -> Any:
    """What comes of it, and anything else as it is."""
    return await given


def bare(given: object) -> object:
    """The object within."""
    return given._it if isinstance(given, Driven) else given


def driven(url: str, runner: asyncio.Runner, **settings: Any) -> Any:
    """The asynchronous client, as if it were the plain one."""
    return Driven(AsyncClient(url, **settings), runner)
