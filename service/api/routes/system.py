"""How the service is: health, metrics, and what its errors mean."""

import re
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from service.api import describe
from service.api.deps import EngineOf, stored
from service.api.problems import status_of
from service.api.query import StrictRoute
from service.codecs.json import JSON, dumps
from service.engine import Engine
from service.errors import NotFound, NotReady, kinds
from service.schemas.answers import Health

router = APIRouter(tags=["system"], route_class=StrictRoute)

SILENT_SECONDS = 5.0  # of a database, after which nothing more should be sent here


def _health_as(status: str) -> dict[str, Any]:
    return {
        "description": "All is well",
        "content": {JSON.media_type: {"schema": describe.reference(Health), "example": {"status": status}}},
    }


@router.get(
    "/livez",
    operation_id="livez",
    summary="Whether the process answers",
    response_class=Response,
    responses={200: _health_as("ok"), **describe.problems()},
)
async def livez() -> Response:
    """200 as long as the event loop turns."""
    return _health({"status": "ok"})


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Whether the service takes work",
    response_class=Response,
    responses={200: _health_as("ready"), **describe.problems(NotReady)},
)
async def readyz(
    engine: EngineOf, verbose: Annotated[str | None, Query(description="list each check")] = None
) -> Response:
    """200 or 503; with `?verbose` each check by name."""
    if engine.store.trouble:
        await stored(engine.store.try_again)
    checks = {
        "draining": "shutting down" if engine.leaving or engine.draining else "ok",
        "workers": workers_check(engine),
        "storage": engine.store.trouble or _silence(engine.store.silent_seconds),
    }
    if set(checks.values()) != {"ok"}:
        raise NotReady(", ".join(f"{name}: {state}" for name, state in checks.items()), **checks)
    body: dict[str, object] = {"status": "ready"}
    if verbose is not None:
        body |= {"checks": checks, "workers": {"ready": engine.workers.ready, "of": len(engine.workers)}}
    return _health(body)


def _silence(seconds: float) -> str:
    return "ok" if seconds < SILENT_SECONDS else f"it has not answered for {seconds:.0f} seconds"


def workers_check(engine: Engine) -> str:
    """A worker that is being replaced makes the service no less ready; one that never came up does."""
    if engine.workers.failing:
        return "none can be started"
    return "ok" if engine.workers.started else "starting"


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "description": "The text format of Prometheus",
        },
        **describe.problems(),
    },
)
async def get_metrics(request: Request) -> Response:
    """Requests, models, jobs, memory and workers in numbers."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/problems/{slug}",
    operation_id="get_problem",
    summary="What an error means",
    response_class=HTMLResponse,
    responses={200: {"content": {"text/html": {}}, "description": "A short page"}, **describe.problems(NotFound)},
)
async def get_problem(slug: Annotated[str, Path(description="the last part of the problem's type")]) -> Response:
    """The page that the `type` of a problem points to."""
    kind = next((kind for kind in kinds() if kind.slug() == slug), None)
    if kind is None:
        raise NotFound(f"there is no problem called {slug[:60]}")
    _, _, advice = (kind.__doc__ or "").partition("\n")
    title = escape(kind.title())
    text = re.sub("`(.+?)`", r"<code>\1</code>", escape(" ".join(advice.split())))
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>Status {status_of(kind)}, <code>{slug}</code></p><p>{text}</p>"
    )


def _health(body: dict[str, object]) -> Response:
    return Response(dumps(body), 200, {"Cache-Control": "no-store"}, JSON.media_type)
