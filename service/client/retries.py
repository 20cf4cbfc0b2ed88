"""When a request is sent again, and after how many seconds."""

import random
import time
from email.utils import parsedate_to_datetime

import httpx

from service.client.calls import Call
from service.client.problems import refusal
from service.errors import IdempotencyInFlight

FIRST_SECONDS, MAX_SECONDS = 0.5, 8.0
MAX_RETRY_AFTER_SECONDS = 60.0
IN_FLIGHT_TRIES = 30  # the first of two requests is still under way, and its answer is worth waiting for
STATUSES = {429, 503, 504}

# The request never left, so that it has done nothing; or it may have, and the answer was lost.
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
LOST = (httpx.ReadError, httpx.WriteError, httpx.ReadTimeout, httpx.WriteTimeout, httpx.RemoteProtocolError)

Outcome = httpx.Response | httpx.RequestError


def pause(call: Call, outcome: Outcome, tried: int, max_retries: int) -> float | None:
    """The seconds after which to send a call again that was tried so many times before; None: no more."""
    if isinstance(outcome, httpx.RequestError):
        again = isinstance(outcome, UNSENT) or (call.repeatable and isinstance(outcome, LOST))
        return backoff(tried) if again and tried < max_retries else None
    if outcome.is_success or not call.patient:
        return None
    problem = refusal(outcome)
    in_flight = isinstance(problem, IdempotencyInFlight) and max_retries > 0
    most = max(max_retries, IN_FLIGHT_TRIES) if in_flight else max_retries
    if tried >= most or not (problem.retryable or outcome.status_code in STATUSES):
        return None
    return _asked(outcome.headers.get("Retry-After")) or backoff(tried)


def gone(call: Call, answer: httpx.Response, tried: int) -> bool:
    """Whether what was to be deleted is no more: the first answer, which said so, may have been lost."""
    return tried > 0 and call.method == "DELETE" and answer.status_code == httpx.codes.NOT_FOUND


def backoff(tried: int) -> float:
    """Twice as long each time, and not all at once."""
    return _scattered(min(FIRST_SECONDS * 2**tried, MAX_SECONDS))


def _asked(retry_after: str | None) -> float | None:
    """The seconds that an answer asks for, as such or as a date (RFC 9110), and a little more."""
    if retry_after is None:
        return None
    try:
        digits = retry_after.strip()
        seconds = float(digits) if digits.isdecimal() else parsedate_to_datetime(digits).timestamp() - time.time()
    except ValueError:
        return None
    return _scattered(min(max(seconds, 0), MAX_RETRY_AFTER_SECONDS) * 4 / 3)


def _scattered(seconds: float) -> float:
    """Something between three quarters of the time and all of it."""
    return seconds * random.uniform(0.75, 1)
