"""What a request is about, known as it is: where several servers share a store, one may not have heard of it yet."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Header

from service.api.deps import in_thread
from service.api.forward import number_of
from service.engine import Engine
from service.errors import NotFound, Stale
from service.ids import ANY_ID

MIN_VERSION = b"x-min-model-version"
NAMED = re.compile(rf"/({ANY_ID.strip('^$')})(?=/|$)")
OUT_OF_TOUCH_SECONDS = 2.0
ASK_SECONDS = 0.5  # that requests wait for a database that does not answer, when what they are about is known

MinVersion = Annotated[
    str | None,
    Header(
        alias="X-Min-Model-Version",
        description="the least version of the model that may answer; a server that has not heard of it yet asks first",
        json_schema_extra={"pattern": "^[0-9]{1,15}$"},  # not checked by FastAPI: the door has done that
    ),
]


class Fresh:
    """Asks the store that servers share about a request, where what is known here may not do."""

    def __init__(self, engine: Engine) -> None:
        self._store = engine.store
        self._registry = engine.registry
        self._known: dict[str, Callable[[str], Any]] = {
            "mdl": engine.registry.get,
            "base": engine.registry.base_record,
            "job": engine.ledger.get,
            "dat": engine.datasets.get,
            "swp": engine.sweeps.get,
        }
        self._asking = asyncio.Lock()
        self._last: tuple[float, asyncio.Future[None] | None] = 0.0, None

    def may_not_do(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether what is known here may not do for a request with these headers."""
        return self._store.shared or MIN_VERSION in headers

    async def __call__(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Know what the path names, if any server does, at the version that is asked for at least.

        Raises:
            Stale: for a model that has no such version yet.
            Validation: for what is no number of a version.
            StorageUnavailable: where the store would have to say, and does not.
        """
        named = NAMED.search(path)
        name = None if named is None else named[1]
        least = number_of(headers.get(MIN_VERSION, b"0").decode("latin-1"), "X-Min-Model-Version")  # 0 is any
        if self._store.shared:
            if not self._is_known(name, least):
                await self._ask(lambda: not self._is_known(name, least))
            elif self._store.silent_seconds > OUT_OF_TOUCH_SECONDS:
                await self._ask_shortly()
        if name is not None and least and not self._is_known(name, least) and self._is_known(name, 0):
            version = self._registry.get(name).version
            raise Stale(
                f"model {name} is at version {version}, and X-Min-Model-Version asks for {least}; "
                "wait for the job that publishes it"
            )

    def _is_known(self, name: str | None, least: int) -> bool:
        if name is None:
            return True
        try:
            known = self._known[name.partition("_")[0]](name)
        except NotFound:
            return False
        return not least or getattr(known, "version", least) >= least

    async def _ask(self, needed: Callable[[], bool]) -> None:
        """Learn what others wrote, one request at a time, unless that has been done meanwhile."""
        async with self._asking:
            if needed():
                await in_thread(self._store.catch_up)

    async def _ask_shortly(self) -> None:
        """The same, but a database that does not answer is not waited for: what is known is the best there is.

        Requests share one question, since each takes a thread until it is answered.
        """
        now = asyncio.get_running_loop().time()
        began, asked = self._last
        if asked is None or asked.done():
            began, asked = self._last = now, asyncio.ensure_future(in_thread(self._store.try_again))
        await asyncio.wait({asked}, timeout=max(0.0, began + ASK_SECONDS - now))
