"""What each error means to a command: its exit status, and what to do next. Loaded where something went wrong."""

from typing import NamedTuple

from service import errors
from service.cli.statuses import Refused, Status
from service.client import JobFailed, Problem, Unreachable
from service.settings import SettingsError


class Ending(NamedTuple):
    """An exit status, and what to do next where the error does not say so itself."""

    status: Status
    advice: str = ""


# The first row that an error is an instance of is its own, so what is special stands before what is general.
ENDINGS: dict[type[BaseException], Ending] = {
    errors.ModelNotFound: Ending(Status.NOT_FOUND, "`lora models` lists those there are"),
    errors.VersionNotFound: Ending(Status.NOT_FOUND, "`lora versions MODEL` lists those that are kept"),
    errors.BaseNotFound: Ending(Status.NOT_FOUND, "`lora bases` lists those there are"),
    errors.DatasetNotFound: Ending(Status.NOT_FOUND, "`lora datasets` lists those there are"),
    errors.SweepNotFound: Ending(Status.NOT_FOUND, "`lora sweeps` lists those there are"),
    errors.JobNotFound: Ending(Status.NOT_FOUND, "`lora jobs` lists those there are"),
    errors.NotFound: Ending(Status.NOT_FOUND),
    errors.ModelBusy: Ending(Status.CONFLICT, "`lora cancel JOB` ends its job, `lora rm --force` the model with it"),
    errors.JobActive: Ending(Status.CONFLICT, "`lora cancel JOB` ends it, `lora rm --force` does both"),
    errors.SweepBusy: Ending(
        Status.CONFLICT,
        "`lora cancel SWEEP` ends its jobs and keeps its models, `lora rm --force` deletes all of them but the best",
    ),
    errors.BaseBusy: Ending(Status.CONFLICT, "`lora rm` its models first"),
    errors.Conflict: Ending(Status.CONFLICT),
    errors.Stale: Ending(Status.CONFLICT, "read it again"),
    errors.TemporaryReducedCapacity: Ending(Status.UNAVAILABLE, "try again in a moment"),
    errors.StorageUnavailable: Ending(Status.UNAVAILABLE),  # whose detail says whether to wait or to restart
    errors.InsufficientStorage: Ending(Status.UNAVAILABLE, "free some space where the service stores things"),
    errors.Unauthorized: Ending(Status.USAGE, "--api-key or LORA_API_KEY is sent as one"),
    errors.TooManyRequests: Ending(Status.UNAVAILABLE, "try again in a moment"),
    errors.RequestTimeout: Ending(Status.UNAVAILABLE, "try again in a moment"),
    errors.NotReady: Ending(Status.UNAVAILABLE, "try again in a moment"),
    errors.Draining: Ending(Status.UNAVAILABLE, "try again when it has been restarted"),
    errors.InternalError: Ending(Status.FAILED, "this is a bug; the service's log has its trace under that request"),
    errors.ServiceError: Ending(Status.USAGE),
    Problem: Ending(Status.UNAVAILABLE, "see whether --url names a lora-service of this version"),
    Unreachable: Ending(Status.UNAVAILABLE, "start one with `lora serve`, or say where it is with --url"),
    JobFailed: Ending(Status.FAILED),
    SettingsError: Ending(Status.USAGE),
    Refused: Ending(Status.USAGE),
    OSError: Ending(Status.USAGE),
}


def ending(error: Exception) -> tuple[str, Status]:
    """One line about an error, and the status to end with.

    Raises:
        Exception: the error itself where no row knows it, since its trace is what helps then.
    """
    row = next((row for kind, row in ENDINGS.items() if isinstance(error, kind)), None)
    if row is None:
        raise error
    said = _said(error)
    return (f"{_fact(said)}; {row.advice}" if row.advice else said), row.status


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, errors.InternalError | errors.StorageUnavailable):
        return str(error)  # with the request's id, under which the log has more
    return error.detail if isinstance(error, errors.ServiceError) else str(error)


def _fact(said: str) -> str:
    """A detail without the service's own advice, which names requests and not commands."""
    return said.partition("; ")[0]
