"""What routes are given: the engine, the settings, and a place for work that would hold up the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Query
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from service.engine import Engine
from service.ids import DATASET_ID, JOB_ID, MODEL_ID
from service.schemas import fields
from service.serving.batcher import too_late
from service.settings import Settings, usable_cores

# Work up to this much is done faster on the spot than a thread can be asked: bytes parsed, or multiplications / 64.
SPOT = 32_768

T = TypeVar("T")


# Coroutines, because FastAPI would ask a thread for a plain function, which costs more than a small forward.
async def engine_of(request: Request) -> Engine:
    """The engine behind the app."""
    engine: Engine = request.app.state.engine
    return engine


async def settings_of(request: Request) -> Settings:
    """The settings of the process."""
    settings: Settings = request.app.state.settings
    return settings


EngineOf = Annotated[Engine, Depends(engine_of)]
SettingsOf = Annotated[Settings, Depends(settings_of)]
ModelIdPath = Annotated[str, Path(pattern=MODEL_ID, description="the model's id", examples=[fields.A_MODEL_ID])]
DatasetIdPath = Annotated[
    str, Path(pattern=DATASET_ID, description="the data set's id", examples=[fields.A_DATASET_ID])
]
JobIdPath = Annotated[str, Path(pattern=JOB_ID, description="the job's id", examples=[fields.A_JOB_ID])]
VersionQuery = Annotated[int | None, Query(ge=0, description="a version that is kept; default: the current one")]


def _threads(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(2, usable_cores()), thread_name_prefix=f"lora-{name}")


# What is read does not wait behind what a slow disk has still to take, nor a forward behind either.
_reading, _writing, _forwarding = (_threads(name) for name in ("read", "write", "forward"))


async def off_loop(cost: int, work: Callable[[], T]) -> T:
    """The work's result: done on the spot when it costs little, else in a thread."""
    if cost <= SPOT:
        return work()
    return await in_thread(work)


async def read_at(version: int | None, cost: int, work: Callable[[], T]) -> T:
    """The result of work on a model's weights, as `off_loop`; earlier ones may have to be read first."""
    return await (off_loop(cost, work) if version is None else in_thread(work))


async def in_thread(work: Callable[[], T]) -> T:
    """The work's result, from a thread: for what takes long and changes nothing."""
    return await _in(_reading, work)


async def written(engine: Engine, cost: int, work: Callable[[], T]) -> T:
    """The result of work that the store is told of, as `off_loop`; a disk is waited for in a thread."""
    return await (stored(work) if engine.store.durable else off_loop(cost, work))


async def stored(work: Callable[[], T]) -> T:
    """The result of work that ends with a write, from a thread."""
    return await _in(_writing, work)


async def _in(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.wrap_future(threads.submit(copy_context().run, work))  # lines that it logs name the request


async def soon(work: Callable[[], T], seconds: float, receive: Receive) -> T:
    """The result of a forward's work in a thread, as `awaited`; what it holds is let go when nobody waits for it."""
    held = [work]
    future = _forwarding.submit(lambda: held.pop()())
    future.add_done_callback(lambda _: held.clear())
    return await awaited(future, seconds, receive)


async def awaited(future: Future[T], seconds: float, receive: Receive) -> T:
    """The result of work in a thread, unless it could not begin in time or nobody waits for it any longer.

    Args:
        seconds: within which it must have begun.
        receive: of a request whose body has been read; what is left to come is that its client has gone.

    Raises:
        TemporaryReducedCapacity, ClientDisconnect, and what the work raises
    """
    result: asyncio.Future[Any] = asyncio.wrap_future(future)
    leaving: asyncio.Future[Any] = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({result, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not result.done() and future.cancel():
            if leaving.done():
                raise ClientDisconnect
            raise too_late(seconds)
        answer: T = await result
        return answer
    finally:
        leaving.cancel()
