"""Every error as `application/problem+json` (RFC 9457): the one place where errors meet HTTP."""

from collections.abc import Mapping, Sequence

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from service import errors
from service.api.faults import MAX_FAULTS, from_pydantic
from service.bounds import cut
from service.errors import ServiceError
from service.schemas.fields import A_BASE_ID, A_DATASET_ID, A_JOB_ID, A_MODEL_ID, A_SWEEP_ID

MEDIA_TYPE = "application/problem+json"
MAX_BYTES = 8 * 1024
MAX_TEXT = 300
MAX_PATH = 100
RETRY_AFTER_SECONDS = 1
# What stands in an address, by the name of the part that it is.
AN_ID = {
    "model_id": A_MODEL_ID,
    "base_id": A_BASE_ID,
    "job_id": A_JOB_ID,
    "dataset_id": A_DATASET_ID,
    "sweep_id": A_SWEEP_ID,
}

STATUS: dict[type[ServiceError], int] = {
    errors.Unreadable: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.NotAcceptable: 406,
    errors.RequestTimeout: 408,
    errors.Conflict: 409,
    errors.Stale: 412,
    errors.TooLarge: 413,
    errors.UriTooLong: 414,
    errors.UnsupportedMediaType: 415,
    errors.UnsupportedEncoding: 415,
    errors.Validation: 422,
    errors.IdempotencyMismatch: 422,
    errors.TooManyRequests: 429,
    errors.HeadersTooLarge: 431,
    errors.InternalError: 500,
    errors.TemporaryReducedCapacity: 503,
    errors.StorageUnavailable: 503,
    errors.NotReady: 503,
    errors.Draining: 503,
    errors.InsufficientStorage: 507,
}


def status_of(error: type[ServiceError]) -> int:
    """The status of an error, or of the nearest of its ancestors that has one."""
    return next((STATUS[cls] for cls in error.__mro__ if cls in STATUS), 500)


def body_of(error: ServiceError, instance: str, request_id: str, trace_id: str | None = None) -> bytes:
    """The problem as JSON: at most 20 faults, and no more than fit into 8 KiB."""
    detail = cut(error.detail, MAX_TEXT)
    faults = [
        {"pointer": cut(each.pointer, MAX_TEXT), "detail": cut(each.detail, MAX_TEXT)}
        for each in error.faults[:MAX_FAULTS]
    ]
    problem = {
        **error.facts,
        "type": f"/problems/{error.slug()}",
        "title": error.title(),
        "status": status_of(type(error)),
        "detail": detail,
        "instance": cut(instance, MAX_PATH),
        "request_id": request_id,
        **({} if trace_id is None else {"trace_id": trace_id}),
        "retryable": error.retryable,
        "errors": faults,
        "error": detail,
    }
    while len(body := orjson.dumps(problem)) > MAX_BYTES and faults:
        faults.pop()
    return body


def response(error: ServiceError, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that failed."""
    extra = dict(headers or {})
    # Without its trace, whose frames hold the request, and with that a body of megabytes until garbage is collected.
    request.state.refused = error.with_traceback(None)
    if error.retryable:
        extra["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, errors.UnsupportedMediaType):
        extra["Accept"] = str(error.facts.get("accept", ""))
    if isinstance(error, errors.Unauthorized):
        extra["WWW-Authenticate"] = "Bearer"  # RFC 6750, 3
    if isinstance(error, errors.TooLarge):
        extra["Connection"] = "close"  # the rest of the body stays unread
    content = body_of(error, request.url.path, request.state.request_id, request.state.trace.get("trace_id"))
    return Response(content, status_of(type(error)), extra, MEDIA_TYPE)


def broken() -> errors.InternalError:
    """What is said of a bug."""
    return errors.InternalError("something broke inside the service; the log holds the trace")


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make every error of the app a problem, the framework's own included."""

    @app.exception_handler(ServiceError)
    async def ours(request: Request, error: ServiceError) -> Response:
        return response(error, request)

    @app.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        for _, name in (fault["loc"] for fault in found if fault["loc"][0] == "path"):
            return response(
                errors.NotFound(f"there is nothing at this address; an id looks like {AN_ID[name]}"), request
            )
        return response(from_pydantic([{**fault, "loc": fault["loc"][1:]} for fault in found]), request)

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return response(errors.NotFound("there is nothing at this address; /docs lists what there is"), request)
        if error.status_code == 405:
            # The framework names the methods of the first route at the path, and others may stand there too.
            at_path = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
            methods = {method for route in at_path for method in getattr(route, "methods", ())}
            # The door answers HEAD wherever there is a GET.
            allow = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
            allow = allow or (error.headers or {}).get("Allow", "")
            detail = f"this address does not know the method {request.method[:20]}; it knows {allow}"
            return response(errors.MethodNotAllowed(detail), request, {"Allow": allow})
        return response(errors.Unreadable(str(error.detail)), request, error.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return response(broken(), request)
