"""When a request is sent again, and after how many seconds."""

import random
import time
from email.utils import parsedate_to_datetime

import httpx

from service.client.calls import Call
from service.client.problems import refusal
from service.errors import IdempotencyInFlight, StorageUnavailable

FIRST_SECONDS, MAX_SECONDS = 0.5, 8.0
MAX_RETRY_AFTER_SECONDS = 60.0
IN_FLIGHT_TRIES = 30

# The service, or what stands before it, has done nothing.
FULL = {429, 503}
# It may have, and was late.
LATE = {504}
# The request never left; or it may have, and the answer was lost.
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
LOST = (httpx.ReadError, httpx.WriteError, httpx.ReadTimeout, httpx.WriteTimeout, httpx.RemoteProtocolError)

Outcome = httpx.Response | httpx.RequestError


def pause(call: Call, outcome: Outcome, tried: int, max_retries: int) -> float | None:
    """The seconds after which to send a call again that was tried so many times before; None: no more."""
    if not call.patient or not _passes(call, outcome) or tried >= _most(outcome, max_retries):
        return None
    asked = outcome.headers.get("Retry-After") if isinstance(outcome, httpx.Response) else None
    return _asked(asked) or backoff(tried)


def _passes(call: Call, outcome: Outcome) -> bool:
    """Whether the trouble may pass, and the call can be sent again without doing more than once."""
    if isinstance(outcome, httpx.RequestError):
        return isinstance(outcome, UNSENT) or (call.repeatable and isinstance(outcome, LOST))
    if outcome.is_success:
        return False
    problem = refusal(outcome)
    if outcome.status_code in LATE or isinstance(problem, StorageUnavailable):  # which may have stored it all the same
        return call.repeatable
    return outcome.status_code in FULL or problem.retryable


def _most(outcome: Outcome, max_retries: int) -> int:
    """How often to try again, if at all: more often where the first of two requests is still under way."""
    under_way = isinstance(outcome, httpx.Response) and isinstance(refusal(outcome), IdempotencyInFlight)
    return max(max_retries, IN_FLIGHT_TRIES) if under_way and max_retries else max_retries


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
    return seconds * random.uniform(0.75, 1)  # nosec B311  # nobody gains by guessing it
