"""The engine: owns what is remembered, the queue and the workers. One method for each verb of the product."""

import secrets
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor

from service.clock import instant
from service.codecs.codec import Answer, Array
from service.codecs.message import Arrays, pack
from service.engine.capacity import Capacity
from service.engine.datasets import Datasets
from service.engine.forwards import Forwards
from service.engine.profile import Reach, rank_profile
from service.engine.recovery import recovered
from service.engine.run import Books, Held, Run
from service.engine.settled import SEEDS, as_computed, dataset_ids, settled
from service.engine.stack import Stack, Stacks
from service.engine.states import States
from service.engine.sweeps import Also, Sweeps
from service.errors import (
    DatasetBusy,
    Draining,
    Fault,
    JobNotFound,
    LimitExceeded,
    ModelBusy,
    ServiceError,
    StateGone,
    TemporaryReducedCapacity,
)
from service.ids import Mint
from service.jobs.job import Job
from service.jobs.ledger import Ledger
from service.jobs.queue import Queue
from service.jobs.state import State
from service.jobs.workers import Workers
from service.lora import init
from service.lora.spec import Spec, refuse
from service.models import job_rows
from service.models.budget import Budget
from service.models.model import Base, LoadedModel, Model
from service.models.registry import Registry
from service.models.replies import Replies
from service.models.store import Change, MemoryOnly, Store
from service.training.cost import bytes_needed
from service.training.plan import Plan
from service.training.sources import Source

Check = Callable[[Model], None]

# Where the libraries under numpy and torch look for how many threads they may use.
BLAS_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Engine:
    """LoRA models that are created, trained and run. Works without HTTP and without an event loop.

    `start` brings up the worker processes that train, and `close` ends them; used in a `with` it does both. All
    that is not training works without them.
    """

    def __init__(self, capacity: Capacity | None = None, device: str = "cpu", store: Store | None = None) -> None:
        self.capacity = capacity or Capacity()
        self.draining = False
        self.device = device
        self.budget = Budget(self.capacity.memory_bytes)
        self.store: Store = store or MemoryOnly()
        self.registry = Registry(self.capacity.max_models, self.budget, self.store, self.capacity.weights_bytes, device)
        self.datasets = Datasets(self.capacity.max_datasets, self.capacity.moments_bytes, self.budget, self.store)
        self.replies = Replies(self.store)
        self.sweeps = Sweeps(self)
        self.states = States(self.capacity.states_bytes)
        self.forwards = Forwards(self.registry, self.capacity, self.budget)
        self.ledger = Ledger(self.capacity.keep_jobs, lambda ids: self.store.write(job_rows.forgotten(ids)))
        self.books = Books(self.registry, self.ledger, self.states, self.store, lambda: self.draining)
        self.queue: Queue[Run] = Queue(self.capacity.queue_max)
        # -P: a worker takes its modules from where the service is installed, not from the folder it is started in.
        command = [sys.executable, "-P", "-m", "service.worker", device, str(self.capacity.worker_threads)]
        stacks = Stacks(
            self.queue,
            self._runs_ended,
            self.capacity.workers,
            self.capacity.together_max,
            self.capacity.train_bytes,
            self.capacity.checkpoint_seconds if self.store.durable else None,
        )
        threads = dict.fromkeys(BLAS_THREADS, str(self.capacity.worker_threads))
        self.workers: Workers[Stack] = Workers(command, self.capacity.workers, stacks, threads)
        self._lock = threading.Lock()  # around taking in a model or a job, and deleting them
        self._profiling = threading.Lock()  # a profile may keep a core busy for long
        self._new_model, self._new_job = Mint("mdl"), Mint("job")
        for run in recovered(self.books, self.budget):
            self.queue.put(run)

    def __enter__(self) -> "Engine":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the worker processes; returns before they are ready."""
        self.workers.start()

    def drain(self) -> None:
        """Take no more training, and let whoever follows a job know."""
        self.draining = True
        self.ledger.ring()

    def close(self) -> None:
        """End the workers; a job that has not ended fails as `interrupted`, unless the store has it: then it goes on.

        Raises nothing, and lets go of the store.
        """
        self.drain()
        with self._lock:  # whoever was let in before is in the ledger now
            jobs = [] if self.store.durable else self.ledger.all()
        for job in jobs:
            if not job.state.terminal:
                with suppress(JobNotFound):  # it ended meanwhile, and was forgotten
                    self._end(job.id, State.FAILED, "interrupted", "the service was shut down before the job had ended")
        self.workers.stop()
        self.forwards.close()
        self.store.close()

    def create(
        self,
        *,
        base_id: str | None = None,
        seed: int | None = None,
        base_seed: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        also: Callable[[LoadedModel], Iterable[Change]] = lambda model: (),
        **settings: Any,
    ) -> LoadedModel:
        """A new model on a fresh base, or on the one named; `settings` are those of `Spec`.

        A fresh base begins from `seed` too, unless it has a seed of its own. What `also` tells of it is stored together
        with it.

        Raises:
            Validation, LimitExceeded, BaseNotFound, CapacityExhausted
        """
        base = None if base_id is None else self.registry.base(base_id)
        spec = Spec(**settings) if base is None else base.spec(settings)
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        needed = spec.adapter_bytes + (spec.base_bytes if base is None else 0)
        self._must_fit(needed)
        self.registry.must_have_room()
        with self.budget.held(needed):
            if base is None:
                base = Base.of(
                    *(self._placed(tensor) for tensor in init.frozen(spec, seed if base_seed is None else base_seed))
                )
            A, B = (self._placed(tensor) for tensor in init.start(spec, seed))
        own = {"own_bias": base.bias.clone()} if spec.train_bias and base.bias is not None else {}
        at = instant().wall
        with self._lock:  # ids come in the order in which models do: a page of a list ends between two of them
            return self.registry.add(
                LoadedModel(
                    id=self._new_model(),
                    base_id=base.id,
                    spec=spec,
                    seed=seed,
                    base=base,
                    adapter={"A": A, "B": B, **own},
                    created_at=at,
                    updated_at=at,
                    name=name,
                    metadata=dict(metadata or {}),
                ),
                also,
            )

    def update(self, model_id: str, check: Check = lambda model: None, **notes: Any) -> Model:
        """The model under another `name` or with other `metadata`; None leaves it without.

        Args:
            check: raises where the model is not to be changed as it is now.

        Raises:
            ModelNotFound
        """
        if "metadata" in notes:
            notes["metadata"] = dict(notes["metadata"] or {})

        def noted(model: Model) -> Model:
            check(model)
            return model.noted(instant().wall, **notes)

        return self.registry.swap(model_id, noted)

    def delete(self, model_id: str, *, force: bool = False, check: Check = lambda model: None) -> None:
        """Forget a model; its jobs stay readable.

        Args:
            check: raises where the model is not to be deleted as it is now.

        Raises:
            ModelNotFound
            ModelBusy: while a job is active, unless `force`, which cancels it.
        """
        with self._lock:
            check(self.registry.get(model_id))
            active = self.ledger.active(model_id)
            if active and not force:
                raise ModelBusy(
                    f"job {active[0].id} is {active[0].state} on model {model_id}; "
                    "cancel it first, or delete the model with ?force=true"
                )
            for job in active:
                with suppress(JobNotFound):  # it ended meanwhile, and was forgotten
                    self.cancel(job.id)
            self.registry.remove(model_id)
            gone: list[str] = []
            for job in self.ledger.all():
                if job.model_id == model_id:
                    self.states.drop(job.id)
                    gone.append(job.id)
            self.forwards.forget(model_id)
            with suppress(ServiceError):  # a start drops them again
                self.store.write(job_rows.stateless(gone))

    def weights(self, model_id: str) -> tuple[LoadedModel, Arrays]:
        """The model, and all its tensors under the names of PEFT.

        Raises:
            ModelNotFound
        """
        model = self.registry.loaded(model_id)
        named = {
            "base.weight": model.base.weight,
            "base.bias": model.base.bias,
            "lora_A.weight": model.adapter["A"],
            "lora_B.weight": model.adapter["B"],
            "bias": model.adapter.get("own_bias"),
        }
        return model, {name: tensor.cpu().numpy() for name, tensor in named.items() if tensor is not None}

    def forward(self, model_id: str, x: Array) -> Answer:
        """The model's outputs (…, out) for inputs (…, in), all from one published version.

        Raises:
            ModelNotFound
            LimitExceeded: when the outputs would be too large.
        """
        return self.forwards.run(self.registry.loaded(model_id), x)

    def train(
        self,
        model_id: str,
        plan: Plan,
        rows: Arrays | None = None,
        also: Callable[[Job], Iterable[Change]] = lambda job: (),
    ) -> Job:
        """Queue a training run; `rows` are those of inline data: `data.x`, `data.y`, `data.weight`, `validation.x` ….

        Raises:
            ModelNotFound, DatasetNotFound, Validation, NonFinite, ShapeMismatch, LimitExceeded, CapacityExhausted
            JobNotFound, StateGone: for a job that cannot be continued.
            TemporaryReducedCapacity: when the queue is full.
            Draining: when the service is shutting down.
        """
        return self.train_all([(model_id, plan)], rows, also=lambda jobs: also(jobs[0]))[0]

    def train_all(
        self,
        members: Sequence[tuple[str, Plan]],
        rows: Arrays | None = None,
        group: str = "",
        also: Also = lambda jobs: (),
    ) -> list[Job]:
        """Queue a training run for each model, on rows that they share: all of them or none.

        Those of one `group` count as one entry of the queue.

        Raises:
            as `train`
        """
        given = as_computed(rows)
        ready = [
            (model_id, spec, *settled(plan, spec, given, self.datasets, self.capacity))
            for model_id, plan in members
            for spec in [self.registry.get(model_id).spec]
        ]
        with self._lock:
            if self.draining:
                raise Draining("the service is shutting down and takes no more training")
            for model_id, _, plan, _ in ready:
                self.registry.get(model_id)
                if plan.continue_from is not None:
                    self._must_go_on(model_id, plan, plan.continue_from)
                for dataset_id in dataset_ids(plan):
                    self.datasets.get(dataset_id)
            self.queue.must_have_room()
            made = [
                (Job.queued(self._new_job(), model_id, plan.epochs or 1, plan, instant().wall), spec, stored)
                for model_id, spec, plan, stored in ready
            ]
            held = Held(given, len(made), made[0][0].id)
            with self.budget.kept(held.nbytes):
                self.store.write(
                    job_rows.given(held.id, given) if held.id is not None else (),
                    *(job_rows.changed(job, group, held.id) for job, _, _ in made),
                    also([job for job, _, _ in made]),
                )
            for job, spec, stored in made:
                self.ledger.add(job)
                self.queue.put(Run(job.id, job.model_id, job.plan, spec, held, stored, self.books, group))
            return [job for job, _, _ in made]

    def delete_dataset(self, dataset_id: str) -> None:
        """Forget a data set.

        Raises:
            DatasetNotFound
            DatasetBusy: while a job that has not ended is to be trained on it.
        """
        with self._lock:
            self.datasets.get(dataset_id)
            for job in self.ledger.all():
                if not job.state.terminal and dataset_id in dataset_ids(job.plan):
                    raise DatasetBusy(f"job {job.id} is {job.state} on data set {dataset_id}; cancel it first")
            self.datasets.remove(dataset_id)

    def rank_profile(self, model_id: str, data: Source, rows: Arrays | None = None) -> tuple[Source, list[Reach]]:
        """The data with nothing left open, and the lowest mse on it that any adapter of each rank on the base has.

        Raises:
            ModelNotFound, DatasetNotFound, Validation, NonFinite, ShapeMismatch, LimitExceeded, CapacityExhausted
            TemporaryReducedCapacity: while another profile is computed.
        """
        model = self.registry.loaded(model_id)
        if data.targets == "classes":
            refuse("data", f"{data.kind} data has integer classes; the profile is that of mse, which needs numbers")
        given = as_computed(rows)
        plan, stored = settled(
            Plan(optimizer="closed_form", data=data), model.spec, given, self.datasets, self.capacity
        )
        if not self._profiling.acquire(blocking=False):
            detail = "another rank profile is being computed; try again when it is done"
            raise TemporaryReducedCapacity(detail, reason="profile-busy", limit=1)
        try:
            with self.budget.held(bytes_needed(plan, model.spec)):
                return plan.data, rank_profile(model, plan, {**given, **stored})
        finally:
            self._profiling.release()

    def cancel(self, job_id: str) -> Job:
        """The job, cancelled unless it had ended; its worker stops after the step it is at.

        Raises:
            JobNotFound
        """
        over = self.ledger.get(job_id).state.terminal
        job = self._end(job_id, State.CANCELLED)
        if not over:
            self.workers.tell(job_id, pack({"do": "cancel", "job": job_id}))
        return job

    def plan_of(self, job_id: str) -> Plan:
        """What a job was asked to do.

        Raises:
            JobNotFound
        """
        plan: Plan = self.ledger.get(job_id).plan
        return plan

    def _must_go_on(self, model_id: str, plan: Plan, job_id: str) -> None:
        """Raise unless the job has left the model as it is now, and nothing else is about to change it."""
        job, model = self.ledger.get(job_id), self.registry.get(model_id)
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
        self.states.get(job_id)

    def _end(self, job_id: str, state: State, reason: str | None = None, detail: str | None = None) -> Job:
        """The job in a terminal state, unless it had ended before."""

        def ended(job: Job) -> Job:
            over = job.moved(state, instant(), reason, detail=detail)
            self.store.write(job_rows.changed(over), job_rows.stateless([job_id]))
            return over

        job = self.ledger.swap(job_id, ended)
        waiting = self.queue.drop(job_id)
        if waiting is not None:
            self.budget.give(waiting.release())
        return job

    def _runs_ended(self, runs: Sequence[Run]) -> None:
        self.queue.done(runs)
        for run in runs:
            self.budget.give(run.release())

    def _must_fit(self, needed: int) -> None:
        allowed = self.capacity.layer_bytes
        if needed > allowed:
            detail = f"the layer needs {needed} bytes; at most {allowed} are allowed (LORA_LAYER_MIB)"
            raise LimitExceeded(detail, Fault("/in_features", detail), bytes_needed=needed, bytes_allowed=allowed)

    def _placed(self, tensor: Tensor | None) -> Any:
        """The tensor where the engine computes."""
        return None if tensor is None else tensor.to(self.device)
