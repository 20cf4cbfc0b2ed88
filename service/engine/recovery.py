"""Take up again what a restart has interrupted: jobs go on from where they were last stored."""

from collections import Counter

from service.clock import instant
from service.codecs.message import Arrays
from service.engine.run import Books, Held, Run
from service.models import job_rows
from service.models.budget import Budget
from service.models.dataset_rows import as_it_was
from service.models.job_rows import Kept
from service.training.plan import Plan
from service.training.sources import Stored


def recovered(books: Books, budget: Budget) -> list[Run]:
    """The runs of all jobs that have not ended, oldest first; every job is in the ledger again, as it was.

    States of jobs that others may continue from are kept again, the newest as far as there is room.
    """
    store = books.store
    jobs = list(job_rows.jobs(store, instant()))
    states = {kept.job.id: job_rows.state(store, kept.job.id) for kept in jobs if not kept.job.state.terminal}
    standing = [job if (state := states.get(job.id)) is None else job_rows.standing(job, state) for job, _, _ in jobs]
    books.ledger.restore(standing)
    _keep_states(books, jobs)
    going = [kept._replace(job=job) for kept, job in zip(jobs, standing, strict=True) if not job.state.terminal]
    users = Counter(kept.given_id for kept in going)
    held = {
        given_id: Held({} if given_id is None else job_rows.given_rows(store, given_id), count, given_id)
        for given_id, count in users.items()
    }
    budget.take(sum(each.nbytes for each in held.values()))
    _drop_what_nobody_needs(books, set(users))
    return [
        Run(
            kept.job.id,
            kept.job.model_id,
            kept.job.plan,
            books.registry.get(kept.job.model_id).spec,
            held[kept.given_id],
            _stored(books, kept.job.plan),
            books,
            kept.group,
            states[kept.job.id],
            kept.job.owner,
        )
        for kept in going
    ]


def _keep_states(books: Books, jobs: list[Kept]) -> None:
    gone: list[str] = []
    for kept in jobs:
        if kept.job.state.terminal and (state := job_rows.state(books.store, kept.job.id)) is not None:
            there = kept.job.model_id in books.registry
            gone += books.states.keep(kept.job.id, state) if there else [kept.job.id]
    books.store.write(job_rows.stateless(gone))


def _drop_what_nobody_needs(books: Books, needed: set[str | None]) -> None:
    ids = [row["id"] for row in books.store.rows("given", "id") if row["id"] not in needed]
    books.store.write(job_rows.needless(ids))


def _stored(books: Books, plan: Plan) -> Arrays:
    """The rows of a plan's data sets, as they were when the job was accepted."""
    arrays: Arrays = {}
    for field in ("data", "validation"):
        source = getattr(plan, field)
        if isinstance(source, Stored):
            was = as_it_was(books.store, source.id, source.n_samples)
            arrays |= {f"{field}.{name}": array for name, array in was.arrays().items()}
    return arrays
