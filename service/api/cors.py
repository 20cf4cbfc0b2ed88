"""What pages of other origins are told, so that their browsers let them call the service and read it (CORS)."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.api import describe
from service.api.once import REPLAYED

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# What a request may have beside what any page may send: what the API reads, and by what it is found again.
SENT = (
    "Authorization",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Inference-Header-Content-Length",
    "Last-Event-ID",
    "Prefer",
    "X-Min-Model-Version",
    "X-Request-Id",
    "traceparent",
    "tracestate",
)
# What a page may read beside what any page may: what answers are described with, and what goes without saying.
READ = (*describe.HEADERS, "Allow", "Content-Disposition", REPLAYED)


def crossed(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The app as pages of these origins may call it; where there are none, the app itself.

    Preflights are answered here, without a key: browsers send none with them.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=SENT,
        expose_headers=READ,
        allow_private_network=True,  # a service at home may list a page out there
    )
