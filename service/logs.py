"""Log lines: for people on a terminal, as one line of JSON elsewhere, each with the request that it is about."""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Literal

Level = Literal["debug", "info", "warning", "error"]

NO_HTTP = "Invalid HTTP request received."  # in uvicorn's words

# What libraries add to their lines for handlers of their own: the text once more in colours, the time once more.
OF_LIBRARIES = {"color_message", "_ray_timestamp_ns"}

# The ids of the request that is answered here, by which a line is found again.
REQUEST: ContextVar[dict[str, str] | None] = ContextVar("REQUEST", default=None)

# W3C Trace Context, 3.2: version, trace, parent, flags; the version ff and ids of zeros alone are none.
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_of(traceparent: bytes) -> dict[str, str]:
    """The ids of the trace and of the span above that a `traceparent` header names; none where it is no such."""
    found = TRACEPARENT.fullmatch(traceparent)
    return {"trace_id": found[1].decode(), "parent_id": found[2].decode()} if found else {}


def configure(level: Level) -> None:
    """Have all lines of the process from this level on written to the standard error."""
    # Here, for commands that log nothing need not wait for it.
    from structlog.dev import ConsoleRenderer, plain_traceback
    from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
    from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name

    renderer: list[Any] = [format_exc_info, JSONRenderer(default=str)]
    if sys.stderr.isatty():
        renderer = [ConsoleRenderer(exception_formatter=plain_traceback)]
    handler = logging.StreamHandler()
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[
                TimeStamper("iso"),
                add_log_level,
                add_logger_name,
                ExtraAdder(),
                _said_once,
                _of_request,
            ],
            processors=[ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("uvicorn.error").addFilter(_is_of_the_service)


def _is_of_the_service(line: logging.LogRecord) -> bool:
    """Whether a line tells of more than a client that sends no HTTP, with which anybody could fill a disk."""
    return line.msg != NO_HTTP or logging.root.isEnabledFor(logging.DEBUG)


def _of_request(logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the ids of the request, unless the line has its own."""
    return {**(REQUEST.get() or {}), **line}


def _said_once(logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave out what the line has elsewhere."""
    return {name: value for name, value in line.items() if name not in OF_LIBRARIES}
