"""The service with a stopwatch around each stage of a forward; says how long they took when it ends.

A process of its own, since what follows a system call runs slower than the same in a loop.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from service.api import forward, server
from service.api.app import create_app, create_engine
from service.api.door import Door
from service.api.runners import create_nursery
from service.codecs.json import JSON
from service.engine.forwards import Forwards
from service.settings import load

spent = dict.fromkeys(("door", "forward", "parse", "product", "encode"), 0.0)


def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, its time added up under a name."""

    def watched(*given: Any) -> Any:
        at = time.perf_counter()
        result = work(*given)
        spent[name] += time.perf_counter() - at
        return result

    return watched


def timed_async(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a coroutine that never has to wait."""

    async def watched(whose: Any, scope: Any, *given: Any) -> Any:  # uvicorn asks by calling it without a scope
        at = time.perf_counter()
        result = await work(whose, scope, *given)
        spent[name] += time.perf_counter() - at
        return result

    return watched


def main() -> None:
    """Serve one model until a signal comes."""
    settings = load(port=0)
    engine = create_engine(settings, create_nursery(settings))  # not started: no workers
    model = engine.create(in_features=64, out_features=10)
    forward.quickly = timed("parse", forward.quickly)
    Forwards.run = timed("product", Forwards.run)  # type: ignore[method-assign]
    object.__setattr__(JSON, "encode", timed("encode", JSON.encode))
    forward.Forward.__call__ = timed_async("forward", forward.Forward.__call__)  # type: ignore[method-assign]
    Door.__call__ = timed_async("door", Door.__call__)  # type: ignore[method-assign]

    def ready(url: str) -> None:
        print("READY", f"{url} {model.id}", flush=True)

    serving = server.server_of(create_app(settings, engine), settings, ready, lambda: None)
    serving.config.lifespan = "off"  # no workers, which would take their share of the core
    serving.run()
    print(json.dumps({**spent, "count": engine.forwards.count}), flush=True)


if __name__ == "__main__":
    main()
