"""The first thing a request meets and the last its answer passes: an id, the time it took, a last resort."""

import asyncio
import itertools
import logging
import re
import secrets
import time

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.forward import PATH
from service.api.metrics import Metrics
from service.api.routes import forward
from service.errors import Draining

ENTRY = forward.router.routes[0]  # which names the route in the metrics
BORN, _numbers = secrets.token_hex(4), itertools.count()  # of this process, in which each request has a number
REQUEST_ID = re.compile(rb"[!-~]{1,128}")

log = logging.getLogger(__name__)


class Door:
    """Pure ASGI around the whole app; a forward takes the short way."""

    def __init__(self, app: ASGIApp, short: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.short = short
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id, method = _request_id(dict(scope["headers"]).get(b"x-request-id", b"")), scope["method"]
        scope.setdefault("state", {}).update(request_id=request_id, head=method == "HEAD")
        if method == "HEAD":  # what GET would answer; the server leaves out the body
            scope = {**scope, "method": "GET"}
        status, app = 0, self.app
        if method == "POST" and (to_model := PATH.fullmatch(scope["path"])):
            scope["route"], scope["path_params"], app = ENTRY, to_model.groupdict(), self.short

        async def pass_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await app(scope, receive, pass_on)
        except ClientDisconnect:
            status = 499  # as nginx counts a client that left before it was answered
        except asyncio.CancelledError:  # the time that a shutdown leaves to requests under way is up
            if not status:
                error = Draining("the service shut down before this request was answered")
                await problems.response(error, Request(scope))(scope, receive, pass_on)
        except Exception:  # the app has answered with a problem already
            log.exception("request %s broke", request_id)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self.metrics.answered(route, _counted(method), status, time.perf_counter() - started)


def _request_id(given: bytes) -> str:
    """The client's own id where it is short and plain, else a new one."""
    return given.decode() if given and REQUEST_ID.fullmatch(given) else f"{BORN}{next(_numbers):08x}"


def _counted(method: str) -> str:
    """The method as a metric may name it: whatever a client makes up counts as one."""
    return method if method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} else "other"
