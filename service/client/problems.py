"""What a client raises: the service's own problems, and that it cannot be reached."""

from functools import cache
from typing import Any

import httpx
from pydantic import ValidationError

from service import errors
from service.errors import Fault, ServiceError
from service.schemas import answers

MEMBERS = answers.Problem.model_fields.keys()


class Problem(Exception):
    """The service said no.

    Each is also the error of that name in `service.errors`: `except errors.ModelNotFound` catches a `model-not-found`,
    `except errors.NotFound` all of its family, `except Problem` everything.

    Attributes:
        slug: the last part of the problem's type, such as `model-not-found`; empty where no service wrote it.
        status: the HTTP status.
        title, detail: what the kind of problem is, and what was wrong this time.
        errors: each fault, with the JSON pointer to it.
        request_id: under which the service's log has it.
        retryable: whether the same request may succeed later.
        body: the whole problem (RFC 9457).
    """

    def __init__(self, body: dict[str, Any], status: int) -> None:
        self.body, self.status = body, status
        self.slug = _slug(body)
        self.title, self.detail = str(body.get("title", "")), str(body.get("detail", ""))
        self.errors = tuple(Fault(**each) for each in body.get("errors", ()))
        # By these names the service's own errors have them.
        self.faults, self.facts = self.errors, {name: body[name] for name in body.keys() - MEMBERS}
        self.request_id: str | None = body.get("request_id")
        self.retryable = bool(body.get("retryable", False))
        what = " ".join((self.detail or self.title).split())
        where = [str(status), self.slug, self.request_id and f"request {self.request_id}"]
        Exception.__init__(self, f"{what} ({', '.join(part for part in where if part)})")

    def __reduce__(self) -> tuple[Any, ...]:
        return problem_of, (self.body, self.status)


class Unreachable(ConnectionError):
    """The service does not answer, or not in time, however often it was asked."""


class JobFailed(RuntimeError):
    """A job that was to succeed has ended otherwise."""


def problem_of(body: dict[str, Any], status: int) -> Problem:
    """The problem in a body, of the class that its slug names."""
    return _kind(_slug(body))(body, status)


def refusal(answer: httpx.Response) -> Problem:
    """The problem that an answer is."""
    try:
        body = answers.Problem.model_validate_json(answer.content).model_dump()
    except ValidationError:  # what answered is not the service, or not the part of it that knows what went wrong
        said = f"{answer.url} answers {answer.text[:200] or answer.reason_phrase}"
        body = _unwritten(answer, answer.reason_phrase, said)
    return problem_of(body, answer.status_code)


def unexpected(answer: httpx.Response, why: str) -> Problem:
    """The problem that an answer is of another form than this client knows."""
    said = f"{answer.url} gives what this client cannot read, so it may be another service or version: {why}"
    return problem_of(_unwritten(answer, "Unexpected answer", said), answer.status_code)


def _unwritten(answer: httpx.Response, title: str, detail: str) -> dict[str, Any]:
    """The body of a problem that the service did not write."""
    return {"title": title, "detail": detail, "request_id": answer.headers.get("X-Request-Id")}


def _slug(body: dict[str, Any]) -> str:
    return str(body.get("type", "")).rpartition("/")[2]


@cache
def _kind(slug: str) -> type[Problem]:
    """The problem that is also the service's error of this slug; a slug that is new is a Problem and no more."""
    kind: type[ServiceError] | None = next((kind for kind in errors.kinds() if kind.slug() == slug), None)
    return Problem if kind is None else type(kind.__name__, (Problem, kind), {"__doc__": kind.__doc__})
