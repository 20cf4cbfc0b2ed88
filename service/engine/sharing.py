"""Jobs that several servers share out among them: who has which, how far they are, and what the others did to them."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from weakref import WeakValueDictionary

from service.clock import instant
from service.engine.run import RETRY_SECONDS, Books, Held, Run
from service.errors import InsufficientStorage, JobNotFound, ServiceError, StorageUnavailable
from service.ids import Mint
from service.jobs.job import Job
from service.jobs.queue import Queue
from service.jobs.state import State
from service.models import job_rows
from service.models.store import ClaimLost, News

log = logging.getLogger(__name__)


class Sharing:
    """The jobs that this server has, and what it knows of the others'. Where a store is not shared, it has them all.

    In the queue those of other servers are away: their keys are taken, until they have ended or nobody has them.
    """

    def __init__(self, books: Books, queue: Queue[Run], new_id: Mint) -> None:
        self._books, self._queue, self._new_id = books, queue, new_id
        self._store, self._ledger, self._leases = books.store, books.ledger, books.store.leases
        self._here: set[str] = set()
        self._held: WeakValueDictionary[str | None, Held] = WeakValueDictionary()  # by the id of the rows
        if books.store.shared:
            for job in books.ledger.all():
                if job.state is State.RUNNING:
                    self._send(job.id)

    def claimed(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Those of the runs that were taken from the queue which this server has now; others have the rest."""
        if self._leases is None or not runs:
            return runs
        try:
            fences = self._leases.claim([run.job_id for run in runs])
        except (StorageUnavailable, InsufficientStorage) as error:
            log.warning("no job can be taken: %s", error.detail)
            self._queue.put_back(runs)
            time.sleep(RETRY_SECONDS)
            return []
        for run in runs:
            run.fence = fences.get(run.job_id)
        mine, others = ([run for run in runs if (run.fence is None) is lost] for lost in (False, True))
        self._here.update(run.job_id for run in mine)
        self._away(others)
        return mine

    def given_back(self, runs: Sequence[Run]) -> None:
        """Runs that were taken wait again."""
        self._release(runs)
        self._queue.put_back(runs)

    def left(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Of runs that no worker has any longer, those that are over; the others are left to whoever takes them."""
        going = [run for run in runs if run.fence is not None and self._goes_on(run.job_id)]
        self._release(runs)
        self._away(going)
        return [run for run in runs if run not in going]

    def lost(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Runs whose worker is gone wait again, as they were last stored; those of them that are not over."""
        again = []
        for run in runs:
            has_it = run.fence is None or run.job_id in self._here
            job = self._waited_for(run.job_id) if has_it else None
            if job is not None:
                run.back_at(job)
                again.append(run)
        self.given_back(again)
        return again

    def told(self, runs: Sequence[Run]) -> None:
        """Tell other servers how far these runs are."""
        if self._leases is None:
            return
        mine = [run for run in runs if run.job_id in self._here]
        try:
            with self._store.turn():
                self._store.write(*(run.news() for run in mine))
            for run in mine:
                run.was_told()
        except (ClaimLost, ServiceError):
            log.warning("other servers cannot be told how far jobs are")

    def keep(self) -> list[str]:
        """Hold the jobs that run here for longer, and take over those that nobody has; those that others have by now.

        Raises:
            StorageUnavailable, InsufficientStorage
        """
        assert self._leases is not None, "only servers that share a store share out jobs"
        here = {*self._here}
        lost = here - {*self._leases.renew(here)}
        self._here -= lost
        free = self._leases.free([run.job_id for run in self._queue.away])
        for job_id in sorted(free, reverse=True):  # so that the oldest comes first in the queue
            self._take_over(job_id)
        return [job_id for job_id in lost if self._goes_on(job_id)]

    def learn(self, news: News) -> list[str]:
        """Take in what other servers did to jobs; the ids of those that have ended by that, or are forgotten."""
        ids = news.of("jobs", self._ledger.ids)
        found = {job.id: job for job in job_rows.jobs(self._store, instant(), id=ids)}
        gone = [job_id for job_id in ids if job_id not in found]
        for job_id in gone:
            self._ledger.lose(job_id)
            self._books.states.drop(job_id)
            self._leave_queue(job_id)
        over = gone + [job.id for job in found.values() if self._know(job)]
        for job_id in news.of("epochs", ()):
            job = self._ledger.find(job_id)
            if job is not None and not job.state.terminal and job_id not in self._here:
                self._ledger.learn(job_rows.followed(self._store, job))
        return over

    def _know(self, job: Job) -> bool:
        """Take in a job as it is elsewhere; whether it has ended by that."""
        known = self._ledger.find(job.id)
        if known is not None and known.state.terminal:
            return False
        if job.state.terminal:
            self._ledger.learn(job)
            if job.state_bytes:
                self._books.states.know(job.id, job.state_bytes)
            self._leave_queue(job.id)
            return True
        if known is None:
            self._new_id.saw(job.id)
            self._ledger.learn(job)
            self._queue.put(self._run(job))
        elif job.id not in self._here:
            self._ledger.learn(job.as_far_as(known))
        if job.state is State.RUNNING and job.id not in self._here:
            self._send(job.id)
        return False

    def _take_over(self, job_id: str) -> None:
        """A job that was away waits here again, as it was last stored."""
        with self._store.turn():
            job = self._taken_back(job_id)
            away = self._queue.drop(job_id)
            if away is not None and job is not None:
                self._queue.put(self._run(job), first=True)

    def _taken_back(self, job_id: str) -> Job | None:
        """The job as it was last stored, which it is here from now on; None where it is over."""

        def as_stored(job: Job) -> Job:
            if job.state is not State.RUNNING:
                return job
            state = job_rows.state(self._store, job_id)
            return replace(job, epoch=0, _curves={}) if state is None else job_rows.standing(job, state)

        try:  # in the ledger's turn, so that no end of the job comes between
            job = self._ledger.swap(job_id, as_stored)
        except JobNotFound:
            return None
        return None if job.state.terminal else job

    def _waited_for(self, job_id: str) -> Job | None:
        """The job as `_taken_back` has it, once the store answers; None where it is over, or for the next start."""
        while not self._books.leaving():
            try:
                with self._store.turn():
                    return self._taken_back(job_id)
            except StorageUnavailable as error:
                log.warning("job %s waits for where it stands: %s", job_id, error.detail)
                time.sleep(RETRY_SECONDS)
        return None

    def _run(self, job: Job) -> Run:
        """A run that reads all it needs when its turn comes."""
        held = self._held[job.given_id] = self._held.get(job.given_id) or Held(self._books, job.given_id)
        return Run(job, self._books.registry.get(job.model_id).spec, self._books, held)

    def _send(self, job_id: str) -> None:
        """A job runs elsewhere; its rows need not be here."""
        run = self._queue.sent(job_id)
        if run is not None:
            run.release()

    def _away(self, runs: Sequence[Run]) -> None:
        self._queue.yielded(runs)
        for run in runs:
            run.release()
            if not self._goes_on(run.job_id):  # nobody will have it
                self._queue.drop(run.job_id)

    def _leave_queue(self, job_id: str) -> None:
        waiting = self._queue.drop(job_id)
        if waiting is not None:
            waiting.release()

    def _release(self, runs: Sequence[Run]) -> None:
        """Leave the leases of runs to others."""
        held = [run.job_id for run in runs if run.job_id in self._here]
        self._here.difference_update(held)
        if self._leases is not None and held:
            with suppress(StorageUnavailable, InsufficientStorage):  # then they lapse
                self._leases.release(held)

    def _goes_on(self, job_id: str) -> bool:
        job = self._ledger.find(job_id)
        return job is not None and not job.state.terminal
