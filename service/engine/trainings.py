"""Jobs from the moment they are accepted until no worker holds them any longer."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain

from service.clock import instant
from service.codecs.message import Arrays
from service.engine.capacity import Capacity
from service.engine.datasets import Datasets
from service.engine.recovery import recovered
from service.engine.run import RETRY_SECONDS, Books, Held, Run
from service.engine.settled import as_computed, dataset_ids, digested, digests, settled
from service.engine.states import States
from service.errors import (
    DatasetBusy,
    Draining,
    JobNotFound,
    ModelBusy,
    ServiceError,
    StateGone,
    StorageUnavailable,
)
from service.ids import Mint
from service.jobs.job import Job
from service.jobs.ledger import Ledger
from service.jobs.queue import Queue
from service.jobs.state import State
from service.lora.spec import refuse
from service.models import job_rows
from service.models.budget import Budget
from service.models.model import LoadedModel, Model
from service.models.registry import Registry
from service.models.store import Change, ClaimLost, News, Store
from service.training.plan import Plan

# What is to be stored together with jobs that are accepted.
Also = Callable[[Sequence[Job]], Iterable[Change]]

TELL_SECONDS = 1.0  # from one time to the next that other servers are told how far jobs are

log = logging.getLogger(__name__)

INTERRUPTED = "the service was shut down before the job had ended"


class Trainings:
    """The jobs, the queue in which they wait, and the states in which they ended.

    What the store has goes on from where it was. `lock` is held while jobs are accepted; who holds it, and has looked
    for what a deletion would harm, can delete.
    """

    def __init__(
        self, capacity: Capacity, registry: Registry, datasets: Datasets, budget: Budget, store: Store
    ) -> None:
        self.lock = threading.Lock()
        self.draining = False
        self.ledger = Ledger(capacity.keep_jobs, lambda ids: store.write(job_rows.forgotten(ids)))
        self.states = States(capacity.states_bytes, store)
        self.queue: Queue[Run] = Queue(capacity.queue_max, capacity.key_queue_max)
        self.books = Books(registry, datasets, self.ledger, self.states, store, lambda: self.draining)
        self._capacity, self._registry, self._datasets = capacity, registry, datasets
        self._budget, self._store = budget, store
        self._here: dict[str, Run] = {}  # those that this server has claimed
        self._told_at = 0.0
        for run in recovered(self.books, budget):
            self.queue.put(run)
            if store.shared and self.ledger.get(run.job_id).state is State.RUNNING:
                self._send(run.job_id)
        self._new_id = Mint("job", (job.id for job in self.ledger.all()))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else accepts jobs, or deletes what they need, here or elsewhere."""
        with self._store.turn(), self.lock:
            yield

    def accept(
        self,
        members: Sequence[tuple[Model, Plan]],
        rows: Arrays | None = None,
        group: str = "",
        also: Also = lambda jobs: (),
        new: Sequence[LoadedModel] = (),
        owner: str = "",
    ) -> list[Job]:
        """Queue a run for each model, on rows that they share: all of them or none.

        Args:
            group: those of one count as one entry of the queue.
            new: the models, where the registry is to take them in with their jobs; they have no ids yet.
            owner: who asks for it, where callers are told apart: each has a share of the queue, and they take turns.

        Raises:
            as `Engine.train`
        """
        given = as_computed(rows)
        fits = [(model, *settled(plan, model.spec, given, self._datasets, self._capacity)) for model, plan in members]
        named_by = digests(given)  # once, whatever the number of members
        ready = [(model, digested(plan, named_by), stored) for model, plan, stored in fits]
        with self.turn():
            if self.draining:
                raise Draining("the service is shutting down and takes no more training")
            named = [replace(model, id=self._registry.new_id()) for model in new]
            models: Sequence[Model] = named or [self._registry.get(model.id) for model, _, _ in ready]
            for model, plan, _ in ready:
                if plan.continue_from is not None:
                    self._must_go_on(model.id, plan, plan.continue_from)
                for dataset_id in dataset_ids(plan):
                    self._datasets.get(dataset_id)
            self.queue.must_have_room(owner)
            at, ids = instant().wall, [self._new_id() for _ in ready]
            known = {"owner": owner, "group": group, "given_id": ids[0] if given else None}
            jobs = [
                Job.queued(job_id, model.id, plan.epochs or 1, plan, at, **known)
                for job_id, model, (_, plan, _) in zip(ids, models, ready, strict=True)
            ]
            held = Held(self._store, self._budget, jobs[0].given_id, given)
            told = chain(job_rows.accepted(jobs, given), also(jobs))
            with self._budget.kept(held.nbytes):
                if named:
                    self._registry.add(*named, also=told)
                else:  # no reader of models need wait for this
                    self._store.write(told)
            for job, model, (_, _, stored) in zip(jobs, models, ready, strict=True):
                self.ledger.add(job)
                self.queue.put(Run(job, model.spec, self.books, held, stored))
            return jobs

    def end(
        self,
        job_id: str,
        state: State,
        reason: str | None = None,
        detail: str | None = None,
        also: Callable[[Job], Iterable[Change]] = lambda job: (),
    ) -> tuple[Job, bool]:
        """The job in a terminal state, and whether it had not ended before.

        Args:
            also: what is to be stored with that; it is stored in either case.

        Raises:
            JobNotFound
        """
        ended: list[Job] = []

        def end(job: Job) -> Job:
            over = job.moved(state, instant(), reason, detail=detail)
            self._store.write(job_rows.ended(over), also(over))
            ended.append(over)
            return over

        with self._store.turn():
            job = self.ledger.swap(job_id, end)
            if not ended:
                self._store.write(also(job))
        self._leave_queue(job_id)
        return job, bool(ended)

    def claimed(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Those of the runs that were taken from the queue which this server has now; others have the rest."""
        leases = self._store.leases
        if leases is None or not runs:
            return runs
        try:
            fences = leases.claim([run.job_id for run in runs])
        except StorageUnavailable as error:
            log.warning("no job can be taken: %s", error.detail)
            self.queue.put_back(runs)
            time.sleep(RETRY_SECONDS)
            return []
        for run in runs:
            run.fence = fences.get(run.job_id)
        mine, others = ([run for run in runs if (run.fence is None) is lost] for lost in (False, True))
        self._here.update((run.job_id, run) for run in mine)
        self.queue.yielded(others)
        for run in others:
            run.release()
        return mine

    def given_back(self, runs: Sequence[Run]) -> None:
        """Runs that were taken wait again."""
        self._release(runs)
        self.queue.put_back(runs)

    def let_go(self, runs: Sequence[Run]) -> None:
        """No worker holds these runs any longer; what has not ended is left to whoever takes it."""
        going = [run for run in runs if run.fence is not None and self._goes_on(run.job_id)]
        self._release(runs)
        self.queue.yielded(going)
        self.queue.done([run for run in runs if run not in going])
        for run in runs:
            run.release()

    def told(self, runs: Sequence[Run]) -> None:
        """Tell other servers, now and then, how far these runs are."""
        if self._store.leases is None or time.monotonic() - self._told_at < TELL_SECONDS:
            return
        self._told_at = time.monotonic()
        try:
            with self._store.turn():
                self._store.write(*(run.news() for run in runs))
            for run in runs:
                run.was_told()
        except (ClaimLost, ServiceError):
            log.warning("other servers cannot be told how far jobs are")

    def keep(self) -> list[str]:
        """Hold the jobs that run here for longer, and take back those that nobody has; what others have by now.

        Raises:
            StorageUnavailable
        """
        leases = self._store.leases
        assert leases is not None, "only servers that share a store share out jobs"
        here = set(self._here)
        lost = here - {*leases.renew()}
        for job_id in lost:
            self._here.pop(job_id, None)
        for job_id in leases.free({run.job_id for run in self.queue.away}):
            self._take_back(job_id)
        return [job_id for job_id in lost if self._goes_on(job_id)]

    def _take_back(self, job_id: str) -> None:
        """A job that ran elsewhere, or was to, waits here again: as it was last stored."""
        with self._store.turn():
            run, job = self.queue.drop(job_id), self.ledger.find(job_id)
            if run is None or job is None or job.state.terminal:
                return
            run.release()
            state = job_rows.state(self._store, job_id)
            if job.state is State.RUNNING:
                job = job_rows.standing(job, state) if state is not None else replace(job, epoch=0, _curves={})
                self.ledger.learn(job)
            held = Held(self._store, self._budget, job.given_id)
            self.queue.put(Run(job, self._registry.get(job.model_id).spec, self.books, held))

    def _release(self, runs: Sequence[Run]) -> None:
        """Leave the leases of runs to others."""
        leases = self._store.leases
        held = [run.job_id for run in runs if self._here.pop(run.job_id, None) is not None]
        if leases is not None and held:
            with suppress(StorageUnavailable):  # then they lapse
                leases.release(held)

    def _goes_on(self, job_id: str) -> bool:
        job = self.ledger.find(job_id)
        return job is not None and not job.state.terminal

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended.

        Raises:
            JobNotFound
            JobActive: when it has not ended.
        """
        with self._store.turn():
            self.ledger.remove(job_id)

    def learn(self, news: News) -> list[str]:
        """Take in what other servers did to jobs; the ids of those that have ended by that."""
        ids = news.of("jobs", self.ledger.ids)
        found = {job.id: job for job in job_rows.jobs(self._store, instant(), id=ids)}
        for job_id in ids:
            if job_id not in found:
                self.ledger.lose(job_id)
                self.states.drop(job_id)
        over = [job.id for job in found.values() if self._know(job)]
        for job_id in news.of("epochs", ()):
            job = self.ledger.find(job_id)
            if job is not None and not job.state.terminal and job_id not in self._here:
                self.ledger.learn(job_rows.followed(self._store, job))
        return over

    def _know(self, job: Job) -> bool:
        """Take in a job as it is elsewhere; whether it has ended by that."""
        known = self.ledger.find(job.id)
        if known is not None and known.state.terminal:
            return False
        if job.state.terminal:
            self.ledger.learn(job)
            if job.state_bytes:
                self.states.know(job.id, job.state_bytes)
            self._leave_queue(job.id)
            return True
        if known is None:
            self._new_id.saw(job.id)
            self.ledger.learn(job)
            held = Held(self._store, self._budget, job.given_id)
            self.queue.put(Run(job, self._registry.get(job.model_id).spec, self.books, held))
        elif job.id not in self._here:
            self.ledger.learn(job.as_far_as(known))
        if job.state is State.RUNNING and job.id not in self._here:
            self._send(job.id)
        return False

    def _send(self, job_id: str) -> None:
        """A job runs elsewhere; its rows need not be here."""
        run = self.queue.sent(job_id)
        if run is not None:
            run.release()

    def drain(self) -> None:
        """Accept nothing more, and let whoever follows a job know."""
        self.draining = True
        self.ledger.ring()

    def interrupt(self) -> None:
        """Fail all jobs that have not ended; nothing has them any longer."""
        with self.turn():  # whoever was let in before is in the ledger now
            jobs = self.ledger.all()
        for job in jobs:
            if not job.state.terminal:
                with suppress(JobNotFound):  # it ended meanwhile, and was forgotten
                    self.end(job.id, State.FAILED, "interrupted", INTERRUPTED)

    def forget(self, model_ids: Sequence[str], job_ids: Sequence[str], also: Iterable[Change] = ()) -> Sequence[Job]:
        """Forget models, and cancel their jobs and these, in one transaction; the jobs that are cancelled by that.

        Whoever calls holds the lock. What their jobs left is not kept either: nothing can go on from there.

        Args:
            also: what is to be stored together with that.
        """
        gone = {*model_ids}
        of_them = [job.id for job in self.ledger.all() if job.model_id in gone]

        def cancelled(active: Sequence[Job]) -> Sequence[Job]:
            over = [job.moved(State.CANCELLED, instant()) for job in active]
            ended = chain.from_iterable(job_rows.ended(job) for job in over)
            self._registry.remove(*model_ids, also=chain(ended, job_rows.stateless(of_them), also))
            return over

        over = self.ledger.swap_all({*of_them, *job_ids}, cancelled)
        for job in over:
            self._leave_queue(job.id)
        for job_id in of_them:
            self.states.drop(job_id)
        return over

    def must_be_idle(self, model_id: str, advice: str) -> None:
        """Raise ModelBusy while a job is active on a model."""
        for job in self.ledger.active(model_id)[:1]:
            raise ModelBusy(f"job {job.id} is {job.state} on model {model_id}; {advice}")

    def must_not_use(self, dataset_id: str) -> None:
        """Raise DatasetBusy while a job that has not ended is to be trained on a data set."""
        for job in self.ledger.all():
            if not job.state.terminal and dataset_id in dataset_ids(job.plan):
                raise DatasetBusy(f"job {job.id} is {job.state} on data set {dataset_id}; cancel it first")

    def _leave_queue(self, job_id: str) -> None:
        waiting = self.queue.drop(job_id)
        if waiting is not None:
            waiting.release()

    def _must_go_on(self, model_id: str, plan: Plan, job_id: str) -> None:
        """Raise unless the job has left the model as it is now, and nothing else is about to change it."""
        job, model = self.ledger.get(job_id), self._registry.get(model_id)
        if plan.optimizer != job.plan.optimizer:
            refuse(
                "optimizer", f"the job to continue from has the optimizer {job.plan.optimizer}, not {plan.optimizer}"
            )
        if job.model_id != model_id or job.model_version != model.version or self.ledger.active(model_id):
            left = "no version" if job.model_version is None else f"version {job.model_version}"
            waits = ", and has jobs that have not ended" if self.ledger.active(model_id) else ""
            raise StateGone(
                f"job {job_id} ({job.state}) left {left} of model {job.model_id}; model {model_id} is at version "
                f"{model.version}{waits}. Only the job that made a model what it is can be gone on from; "
                "leave continue_from out to start the optimizer afresh"
            )
        self.states.must_have(job_id)
