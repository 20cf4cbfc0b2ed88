"""Take up again what a restart has interrupted: jobs go on from where they were last stored."""

from service.clock import instant
from service.engine.run import Books, Held, Run
from service.jobs.job import Job
from service.models import job_rows


def recovered(books: Books) -> list[Run]:
    """The runs of all jobs that have not ended, oldest first; every job is in the ledger again, as it was.

    States of jobs that others may continue from are known again, the newest as far as there is room.
    """
    jobs = [_standing(books, job) for job in job_rows.jobs(books.store, instant())]
    books.ledger.restore(jobs)
    if not books.store.shared:  # else that is for whoever writes next, as below
        books.ledger.trim()
    gone: list[str] = []
    left = [job for job in books.ledger.all() if job.state_bytes and job.model_id in books.registry]
    for job in sorted(left, key=lambda job: (job.finished_at, job.id)):
        gone += books.states.know(job.id, job.state_bytes)
    if not books.store.shared:
        books.store.write(job_rows.stateless(gone))
    going = [job for job in jobs if not job.state.terminal]
    held = {job.given_id: Held(books, job.given_id) for job in going}
    return [Run(job, books.registry.get(job.model_id).spec, books, held[job.given_id]) for job in going]


def _standing(books: Books, job: Job) -> Job:
    """A job as it was when it had come to the state that is stored, where it has not ended."""
    state = None if job.state.terminal else job_rows.state(books.store, job.id)
    return job if state is None else job_rows.standing(job, state)
