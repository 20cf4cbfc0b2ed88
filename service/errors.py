"""Every way the service says no. No HTTP here: `api/problems.py` knows the status of each.

The first line of a docstring is the problem's title, the rest tells a reader what to do, and the name
in kebab case is its slug: all three are served at `/problems/{slug}`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and the JSON pointer (RFC 6901) to it."""

    pointer: str
    detail: str


def pointer(*path: str | int) -> str:
    """The JSON pointer (RFC 6901) to what stands at a path of names and indices."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


class ServiceError(Exception):
    """The service could not do what was asked."""

    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *faults: Fault, **facts: int | float | str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults
        self.facts = facts

    def moved(self, place: Callable[[str], str]) -> Self:
        """This error with its pointers where `place` puts them, for a body that holds what was checked."""
        self.faults = tuple(Fault(place(fault.pointer), fault.detail) for fault in self.faults)
        return self

    @classmethod
    def slug(cls) -> str:
        """The name in kebab case: `ModelNotFound` is `model-not-found`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def title(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0].rstrip(".")


class Unreadable(ServiceError):
    """The request could not be read.

    Something in the message itself is broken; the detail says where.
    """


class MalformedJson(Unreadable):
    """The body is not JSON.

    The detail names the byte at which reading stopped. Common causes: a trailing comma, single quotes,
    a body cut short, text that is not UTF-8, or a byte order mark.
    """


class TooDeep(Unreadable):
    """The JSON is nested too deeply.

    No request of this service needs more than a handful of levels; a tensor has at most eight.
    """


class BadIdempotencyKey(Unreadable):
    """The Idempotency-Key cannot be used.

    It is any text of 1 to 255 ASCII characters that the client makes up, such as a UUID, anew for each request.
    """


class BadHost(Unreadable):
    """The request is addressed to a name that is not this service's.

    A page of somebody else could have its own name lead here. IP addresses, names without a dot such as localhost,
    `LORA_HOST` and what `LORA_ALLOWED_HOSTS` lists are taken, `*.example.org` for all names below that.
    """


class Unauthorized(ServiceError):
    """A key is needed.

    Send one of the service's keys as `Authorization: Bearer KEY`. Whoever runs the service sets them in
    `LORA_API_KEYS`.
    """


class Forbidden(ServiceError):
    """This key may not do that.

    A key with the scope `read` looks at things and runs models. What makes, changes or deletes something needs one
    without it.
    """


class CrossOrigin(Forbidden):
    """A page from elsewhere may not change anything here.

    Browsers say in `Origin` where a page comes from; it must be this service, or be listed in `LORA_ALLOWED_ORIGINS`.
    """


class RequestTimeout(ServiceError):
    """The request took too long to arrive.

    The connection is closed. `/limits` says how long a head and a body may take.
    """

    retryable = True


class TooManyRequests(ServiceError):
    """This key has too much under way.

    Wait for some of it to end, and try again after the seconds in `Retry-After`. Other keys are not held up by that.
    """

    retryable = True


class IdempotencyMismatch(ServiceError):
    """The Idempotency-Key was used for another request.

    A key belongs to one method, address and body. Take a new one for a new request.
    """


class BadCursor(Unreadable):
    """The cursor does not belong to this list.

    Pass `next_cursor` of the page before unchanged, with the same filters, or start without a cursor.
    """


class Validation(ServiceError):
    """The request is readable but wrong.

    `errors` lists each fault with a JSON pointer to the field, the value given and what is allowed.
    """


class DuplicateKey(Validation):
    """An object names the same key twice.

    Parsers disagree on which of the two counts, so the service takes neither.
    """


class LimitExceeded(Validation):
    """A size is beyond what the service takes.

    `/limits` lists every limit with its unit and the setting that moves it. Nothing was allocated.
    """


class ShapeMismatch(Validation):
    """The numbers do not have the shape they need.

    The last dimension of an input is the layer's `in_features`, and all rows are equally long.
    """


class NonFinite(Validation):
    """A number is NaN or infinite.

    Every number must be finite as float32; the detail names the first that is not.
    """


class BadNpy(Validation):
    """The body is not a npy file this service reads.

    Send what `numpy.save` writes for a little-endian float32, float64 or float16 array.
    """


class BadSafetensors(Validation):
    """The body is not a safetensors file this service reads.

    Send what `safetensors` writes, with exactly the tensors the route names.
    """


class NotFound(ServiceError):
    """There is nothing at this address."""


class ModelNotFound(NotFound):
    """There is no model with this id.

    It was deleted, or it lived in the memory of a server that has restarted. `GET /models` lists those there are.
    """


class VersionNotFound(NotFound):
    """This version of the model is not kept.

    A model keeps its current version, as many before it as `LORA_KEEP_VERSIONS` says, and the one of the lowest loss.
    `GET /models/{id}/versions` lists them.
    """


class BaseNotFound(NotFound):
    """There is no base with this id.

    A base made by `POST /models` goes with its last model; an uploaded one stays until it is deleted.
    """


class DatasetNotFound(NotFound):
    """There is no data set with this id.

    It was deleted, or it lived in the memory of a server that has restarted. `GET /datasets` lists those there are.
    """


class SweepNotFound(NotFound):
    """There is no sweep with this id.

    It was deleted, or so many have been started since that it was dropped; its models and jobs go on by themselves.
    """


class JobNotFound(NotFound):
    """There is no job with this id.

    It was deleted, or so many have finished since that it was dropped; `GET /jobs` lists those there are.
    """


class MethodNotAllowed(ServiceError):
    """This address does not know this method.

    The `Allow` header lists the ones it does.
    """


class NotAcceptable(ServiceError):
    """The service cannot answer in any type the Accept header names."""


class UnsupportedMediaType(ServiceError):
    """The service does not read this Content-Type here.

    The `Accept` header of the answer lists the types that it reads.
    """


class UnsupportedEncoding(ServiceError):
    """The service does not read compressed requests.

    Send the body without a Content-Encoding.
    """


class TooLarge(ServiceError):
    """The body is larger than the service takes.

    Binary formats (npy, safetensors, octet-stream) need a fifth of the bytes of JSON and have a higher limit.
    """


class UriTooLong(ServiceError):
    """The address is longer than the service takes."""


class HeadersTooLarge(ServiceError):
    """The request's headers are larger than the service takes."""


class Stale(ServiceError):
    """The thing is not in the state that the request was made for.

    Somebody has changed it since it was read. Read it again, and send the request with its new ETag in If-Match.
    """


class Conflict(ServiceError):
    """The state of things does not allow this now."""


class ModelBusy(Conflict):
    """A job is under way on this model.

    Wait for it, cancel it (`POST /jobs/{id}/cancel`), or delete the model with `?force=true`.
    """


class BaseBusy(Conflict):
    """Models stand on this base.

    Delete them first, or leave the base where it is: they need it. `GET /models?base_id=…` lists them.
    """


class DatasetBusy(Conflict):
    """A job that has not ended is to be trained on this data set.

    Wait for the job, or cancel it, and delete the data set then.
    """


class IdempotencyInFlight(Conflict):
    """A request with this Idempotency-Key is under way.

    Ask again when it has been answered: the answer will be the same.
    """

    retryable = True


class StateGone(Conflict):
    """The state in which this job ended cannot be gone on from.

    It is kept for the jobs that ended last, and only while the model still has the version that the job published.
    """


class SweepBusy(Conflict):
    """Members of this sweep have not ended.

    Wait for them, or cancel them (`POST /sweeps/{id}/cancel`), which keeps all its models. `?force=true` cancels them
    and deletes all its models but the best `keep`.
    """


class JobActive(Conflict):
    """The job has not ended.

    Cancel it first (`POST /jobs/{id}/cancel`); a job that has ended can be deleted.
    """


class CapacityExhausted(Conflict):
    """The service holds as much as it may.

    Delete models that are no longer needed, or raise the setting that the detail names.
    """


class TemporaryReducedCapacity(ServiceError):
    """The service has too much to do right now.

    Try again after the seconds in `Retry-After`. `reason` says in a word what there was too much of.
    """

    retryable = True


class StorageUnavailable(ServiceError):
    """The database does not answer right now.

    Try again after the seconds in `Retry-After`; the detail says what the database said, and what became of a change.
    """

    retryable = True


class InsufficientStorage(ServiceError):
    """There is no space left where the service stores things.

    Nothing was changed. Free some space, or delete what is no longer needed.
    """


class NotReady(ServiceError):
    """The service does not take work yet, or no longer.

    The detail has the state of each check. After a start it takes some seconds until the workers are up.
    """

    retryable = True


class Draining(ServiceError):
    """The service is shutting down.

    Try again after the seconds in `Retry-After`; another process, or this one restarted, will answer.
    """

    retryable = True


class InternalError(ServiceError):
    """Something broke inside the service.

    This is a bug. The log holds its trace under the `request_id` of the answer; please report both.
    """


def kinds() -> list[type[ServiceError]]:
    """Every kind of error there is, in the order in which they stand here."""
    return [kind for kind in globals().values() if isinstance(kind, type) and ServiceError in kind.__mro__[1:]]
