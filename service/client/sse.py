"""Events of a job, and how they are read off a stream of lines (WHATWG HTML, 9.2)."""

from dataclasses import dataclass
from typing import Any

import orjson

from service.client.calls import Call, at

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0  # as often as that the service gives a sign of life


@dataclass(frozen=True)
class Event:
    """The `id`-th thing that happened to a job, counted from 1.

    `state` and `done` carry the job's state and the reason for it, `epoch` what was measured: epoch, epochs, loss, ….
    """

    id: int
    kind: str
    data: dict[str, Any]


class Reader:
    """Puts events together from the lines of one stream."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> Event | None:
        """The numbered event that this line completes, if it completes one."""
        if line:
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if not {"id", "event", "data"} <= fields.keys():  # a sign of life, or of the service's end
            return None
        return Event(int(fields["id"]), fields["event"], orjson.loads(fields["data"]))


def following(job_id: str, after: int) -> Call:
    """Ask for the events of a job as they happen, beginning after the one of this number."""
    headers = {"Accept": MEDIA_TYPE, "Last-Event-ID": str(after)}
    return Call("GET", at("jobs", job_id, "events"), headers=headers, wait_seconds=KEEP_ALIVE_SECONDS)
