"""Jobs from the moment they are accepted until no worker holds them any longer."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain

from service.clock import instant
from service.codecs.message import Arrays
from service.engine.capacity import Capacity
from service.engine.datasets import Datasets
from service.engine.recovery import recovered
from service.engine.run import Books, Held, Run
from service.engine.settled import as_computed, dataset_ids, digested, digests, settled
from service.engine.sharing import Sharing
from service.engine.states import States
from service.errors import DatasetBusy, Draining, JobNotFound, ModelBusy, StateGone
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
from service.models.store import Change, Store
from service.training.plan import Plan

# What is to be stored together with jobs that are accepted.
Also = Callable[[Sequence[Job]], Iterable[Change]]

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
        self.ledger = Ledger(capacity.keep_jobs, self._forget_jobs)
        self.states = States(capacity.states_bytes, store)
        self.queue: Queue[Run] = Queue(capacity.queue_max, capacity.key_queue_max)
        self.books = Books(registry, datasets, self.ledger, self.states, store, budget, lambda: self.draining)
        self._capacity, self._registry, self._datasets = capacity, registry, datasets
        self._budget, self._store = budget, store
        for run in recovered(self.books):
            self.queue.put(run)
        self._new_id = Mint("job", (job.id for job in self.ledger.all()))
        self.sharing = Sharing(self.books, self.queue, self._new_id)

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
            held = Held(self.books, jobs[0].given_id, given)
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

    def cancel_all(self, job_ids: Collection[str], also: Iterable[Change] = ()) -> Sequence[Job]:
        """Cancel those of the jobs that have not ended, in one transaction; the jobs that are cancelled by that.

        Args:
            also: what is to be stored together with that; it is stored in any case.
        """

        def cancelled(active: Sequence[Job]) -> Sequence[Job]:
            over = [job.moved(State.CANCELLED, instant()) for job in active]
            self._store.write(chain.from_iterable(map(job_rows.ended, over)), also)
            return over

        with self._store.turn():
            over = self.ledger.swap_all(job_ids, cancelled)
        for job in over:
            self._leave_queue(job.id)
        return over

    def let_go(self, runs: Sequence[Run]) -> None:
        """No worker holds these runs any longer."""
        self.queue.done(self.sharing.left(runs))
        for run in runs:
            run.release()

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended.

        Raises:
            JobNotFound
            JobActive: when it has not ended.
        """
        with self._store.turn():
            self.ledger.remove(job_id)

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

    def _forget_jobs(self, job_ids: Sequence[str]) -> None:
        """What jobs left goes with them."""
        self._store.write(job_rows.forgotten(job_ids))
        for job_id in job_ids:
            self.states.drop(job_id)

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
