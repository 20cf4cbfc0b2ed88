"""The first thing a request meets and the last its answer passes: an id, a guard, the time it took, a last resort."""

import asyncio
import itertools
import logging
import re
import secrets
import time

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.forward import PATH, ROUTE, Forward
from service.api.fresh import Fresh
from service.api.guard import PROBES, Guard
from service.api.intake import Intake
from service.api.keys import ANYBODY, Caller
from service.api.metrics import Metrics
from service.errors import Draining, ServiceError, TemporaryReducedCapacity
from service.logs import REQUEST, trace_of

BORN, _numbers = secrets.token_hex(4), itertools.count()  # of this process, in which each request has a number
REQUEST_ID = re.compile(rb"[!-~]{1,128}")

log = logging.getLogger(__name__)


class Door:
    """Pure ASGI around the whole app; a forward takes the short way."""

    def __init__(
        self, app: ASGIApp, forward: Forward, metrics: Metrics, guard: Guard, intake: Intake, fresh: Fresh
    ) -> None:
        self.app = app
        self.forward = forward
        self.metrics = metrics
        self.guard, self.intake, self.fresh = guard, intake, fresh

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        head, method = dict(scope["headers"]), scope["method"]
        request_id = request_id_of(head.get(b"x-request-id", b""))
        trace = trace_of(head[b"traceparent"]) if b"traceparent" in head else {}
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "head": method == "HEAD", "trace": trace}
        REQUEST.set({"request_id": request_id, **trace})
        status, route = 0, ""

        async def pass_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            caller = scope["state"]["caller"] = self.guard.caller(method, scope["path"], head)
            with caller.share, self.intake.of(head, receive) as receive:
                if self.fresh.may_not_do(head):
                    await self.fresh(scope["path"], head)
                if method == "POST" and (found := PATH.fullmatch(scope["path"])):
                    route, scope["path_params"] = ROUTE, found.groupdict()
                    status, headers, content = await self.forward(scope, head, receive)
                    headers.append((b"x-request-id", request_id.encode()))
                    await send({"type": "http.response.start", "status": status, "headers": headers})
                    await send({"type": "http.response.body", "body": content})
                else:
                    if method == "HEAD":  # what GET would answer; the server leaves out the body
                        scope = {**scope, "method": "GET"}
                    await self.app(scope, receive, pass_on)
        except ServiceError as refusal:  # of the guard and the share; the app answers its own
            await problems.response(refusal, Request(scope))(scope, receive, pass_on)
        except ClientDisconnect:
            unread = scope["state"].get("unread")  # what the server said of a body that it could not read to its end
            # 499 is how nginx counts a client that left before it was answered.
            status = problems.status_of(type(unread)) if unread else 499
        except asyncio.CancelledError:  # the time that a shutdown leaves to requests under way is up
            if not status:
                error = Draining("the service shut down before this request was answered")
                await problems.response(error, Request(scope))(scope, receive, pass_on)
        except Exception:
            log.exception("request %s broke", request_id)
            if not status:  # else the app has answered with a problem already
                await problems.response(problems.broken(), Request(scope))(scope, receive, pass_on)
        finally:
            route = route or getattr(scope.get("route"), "path", "unmatched")
            refused = scope["state"].get("refused")
            if isinstance(refused, TemporaryReducedCapacity):
                self.metrics.shed(str(refused.facts.get("reason")))
            seconds = time.perf_counter() - started
            self.metrics.answered(route, _counted(method), status, seconds)
            if log.isEnabledFor(logging.INFO):
                self._tell(scope, route, status, seconds)

    def _tell(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        """A line about a request; probes, which come all the time, are for those who debug."""
        caller: Caller = scope["state"].get("caller", ANYBODY)
        facts = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(1_000 * seconds, 3)}
        log.log(
            logging.DEBUG if route in PROBES else logging.INFO, "request", extra={**facts, "key": caller.name or None}
        )


def request_id_of(given: bytes) -> str:
    """The client's own id where it is short and plain, else a new one."""
    return given.decode() if given and REQUEST_ID.fullmatch(given) else f"{BORN}{next(_numbers):08x}"


def _counted(method: str) -> str:
    """The method as a metric may name it: whatever a client makes up counts as one."""
    return method if method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} else "other"
