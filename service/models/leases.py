"""Which server trains which job: a lease that it renews, with a number that grows each time somebody takes the job."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from service.models.sql import refusal

LEASE_SECONDS = 10.0

# Of one model the jobs run one after another, so one is not to be had before those that came before it have ended.
CLAIM = text(
    """
    WITH free AS (
        SELECT jobs.id FROM jobs LEFT JOIN leases ON leases.job_id = jobs.id
        WHERE jobs.id = ANY(:job_ids) AND NOT jobs.ended
        AND (leases.until IS NULL OR leases.until < clock_timestamp())
        AND NOT EXISTS (
            SELECT 1 FROM jobs AS earlier
            WHERE earlier.model_id = jobs.model_id AND NOT earlier.ended AND earlier.id < jobs.id
        )
        FOR UPDATE OF jobs SKIP LOCKED
    )
    INSERT INTO leases (job_id, server, fence, until)
    SELECT id, :server, 1, clock_timestamp() + make_interval(secs => :seconds) FROM free
    ON CONFLICT (job_id) DO UPDATE
    SET server = excluded.server, fence = leases.fence + 1, until = excluded.until
    WHERE leases.until < clock_timestamp()
    RETURNING job_id, fence
    """
)
RENEW = text(
    """
    UPDATE leases SET until = clock_timestamp() + make_interval(secs => :seconds)
    WHERE job_id IN (
        SELECT job_id FROM leases
        WHERE server = :server AND job_id = ANY(:job_ids) AND until > '-infinity' FOR UPDATE SKIP LOCKED
    )
    """
)
HELD = text("SELECT job_id FROM leases WHERE server = :server AND job_id = ANY(:job_ids) AND until > clock_timestamp()")
FREE = text(
    """
    SELECT jobs.id FROM jobs LEFT JOIN leases ON leases.job_id = jobs.id
    WHERE jobs.id = ANY(:job_ids) AND NOT jobs.ended
    AND (leases.until IS NULL OR leases.until < clock_timestamp())
    """
)
RELEASE = text("UPDATE leases SET until = '-infinity' WHERE server = :server AND job_id = ANY(:job_ids)")


class Leases:
    """The jobs of one server, told apart by its name, in a PostgreSQL; times are those of the database's clock.

    All of its methods raise StorageUnavailable where that does not answer, and InsufficientStorage where it is full.
    """

    def __init__(self, engine: Engine, server: str, seconds: float = LEASE_SECONDS) -> None:
        self.seconds = seconds
        self._engine, self._server = engine, server

    def claim(self, job_ids: Sequence[str]) -> Mapping[str, int]:
        """Take those of the jobs that nobody has, and that come first on their models; the fence of each."""
        return dict(self._done(CLAIM, job_ids=list(job_ids), seconds=self.seconds))

    def renew(self, job_ids: Collection[str]) -> Collection[str]:
        """Hold jobs for longer; those of them that this server has. Others that it has lapse."""
        self._done(RENEW, job_ids=list(job_ids), seconds=self.seconds)
        return {job_id for (job_id,) in self._done(HELD, job_ids=list(job_ids))}

    def free(self, job_ids: Collection[str]) -> list[str]:
        """Those of the jobs that have not ended and that nobody has."""
        return [job_id for (job_id,) in self._done(FREE, job_ids=list(job_ids))]

    def release(self, job_ids: Collection[str]) -> None:
        """Leave jobs to others."""
        self._done(RELEASE, job_ids=list(job_ids))

    def _done(self, statement: Any, **values: Any) -> list[Any]:
        try:
            with self._engine.begin() as connection:
                done = connection.execute(statement, {"server": self._server, **values})
                return [tuple(row) for row in done] if done.returns_rows else []
        except DBAPIError as error:
            raise refusal(error, "the leases of jobs cannot be asked for") from error
