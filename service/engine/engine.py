"""The engine: owns what is remembered, the queue and the workers. One method for each verb of the product."""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.clock import instant
from service.codecs.codec import Answer, Array
from service.codecs.layer import Layer
from service.codecs.message import Arrays, pack
from service.engine.adapters import Adapters
from service.engine.analysis import Analyst
from service.engine.capacity import Capacity
from service.engine.combining import Combiner, Pair
from service.engine.datasets import Datasets
from service.engine.decomposing import Decomposing
from service.engine.forwards import Forwards
from service.engine.making import Maker
from service.engine.profile import Reach, rank_profile
from service.engine.settled import as_computed, digested, digests, settled
from service.engine.stack import Stack, Stacks
from service.engine.sweeps import Choose, Sweeps
from service.engine.trainings import Also, Trainings
from service.errors import InsufficientStorage, StorageUnavailable, TemporaryReducedCapacity, Validation
from service.jobs.job import Job
from service.jobs.nursery import Nursery, of_workers
from service.jobs.state import State
from service.jobs.workers import Workers
from service.lora.spec import refuse
from service.models.base import Base, BaseRecord
from service.models.budget import Budget
from service.models.model import LoadedModel, Model
from service.models.registry import Registry
from service.models.replies import Replies
from service.models.store import Change, MemoryOnly, News, Store
from service.training.cost import bytes_needed
from service.training.plan import Plan
from service.training.sources import Source

Check = Callable[[Model], None]

PAUSE_SECONDS = 5.0
KEEPS = 5  # times that a lease is renewed before it would lapse

log = logging.getLogger(__name__)


class Engine:
    """LoRA models that are created, trained and run. Works without HTTP and without an event loop.

    `start` brings up the worker processes that train, and `close` ends them; used in a `with` it does both. All
    that is not training works without them. A nursery that is handed in is left to whoever made it.
    """

    def __init__(
        self,
        capacity: Capacity | None = None,
        device: str = "cpu",
        store: Store | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        self.capacity = capacity or Capacity()
        self.device = device
        self.budget = Budget(self.capacity.memory_bytes)
        self.store: Store = store or MemoryOnly()
        with self.store.moment():
            self.registry = Registry(
                self.capacity.max_models,
                self.budget,
                self.store,
                self.capacity.weights_bytes,
                device,
                self.capacity.keep_versions,
            )
            self.datasets = Datasets(self.capacity.max_datasets, self.capacity.moments_bytes, self.budget, self.store)
            self.trainings = Trainings(self.capacity, self.registry, self.datasets, self.budget, self.store)
            self.ledger, self.queue, self.states = self.trainings.ledger, self.trainings.queue, self.trainings.states
            self.sweeps = Sweeps(self)
            self.replies = Replies(self.store)
        self.adapters = Adapters(self.registry, self.trainings, self.budget, device)
        self.forwards = Forwards(self.registry, self.capacity, self.budget)
        stacks = Stacks(
            self.trainings,
            self.capacity.workers,
            self.capacity.together_max,
            self.capacity.train_bytes,
            self.capacity.checkpoint_seconds if self.store.durable else None,
            self.capacity.retries,
        )
        threads = self.capacity.worker_threads
        self._nursery, self._own_nursery = nursery or of_workers(threads), nursery is None
        self.workers: Workers[Stack] = Workers(self._nursery, self.capacity.workers, stacks, [device, str(threads)])
        self._maker = Maker(self.registry, self.budget, self.capacity, device)
        decomposing = Decomposing(self.budget)
        self._combiner = Combiner(self.registry, self._maker, decomposing)
        self.analyst = Analyst(self.registry, decomposing)
        self._profiling = threading.Lock()  # a profile may keep a core busy for long
        self.leaving = False
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lora-keeper", daemon=True)
        self.store.follow(self._learn)

    def __enter__(self) -> "Engine":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the worker processes; returns before they are ready."""
        self.workers.start()
        if self.store.leases is not None:
            self._keeper.start()

    @property
    def draining(self) -> bool:
        """Whether the service is shutting down."""
        return self.trainings.draining

    def announce_leave(self) -> None:
        """Be ready for no more, for those who ask; all goes on as ever until `drain`."""
        self.leaving = True

    def drain(self) -> None:
        """Take no more training, and let whoever follows a job know; what the store has stops where it is."""
        self.trainings.drain()
        if self.store.durable:
            self.queue.close()
            self.workers.tell_all(pack({"do": "pause"}))

    def close(self) -> None:
        """End the workers; a job that has not ended fails as `interrupted`, unless the store has it: then it goes on.

        Where it goes on from is stored, unless it does not come to the end of an epoch within `PAUSE_SECONDS`. Raises
        nothing, and lets go of the store.
        """
        self.drain()
        if not self.store.durable:
            self.trainings.interrupt()
        elif not self.queue.until_idle(PAUSE_SECONDS):
            log.warning("a job did not come to the end of an epoch; it goes on from where it was last stored")
        self.workers.stop()
        self._closing.set()
        if self._own_nursery:
            self._nursery.stop()
        self.forwards.close()
        if self._keeper.ident is not None:
            self._keeper.join()
        self.store.close()

    def create(
        self,
        *,
        base_id: str | None = None,
        layers: Sequence[Mapping[str, Any]] | None = None,
        also: Callable[[LoadedModel], Iterable[Change]] = lambda model: (),
        **settings: Any,
    ) -> LoadedModel:
        """A new model on a fresh base, or on the one named; or of several layers, each likewise.

        Args:
            layers: what each has of its own: `base_id`, sizes, `rank`, `alpha`, and the `activation` after it.
            also: what is to be stored together with it.
            settings: those of `Spec`, and `seed`, `base_seed`, `name`, `metadata`. A fresh base begins from `seed` too,
                unless it has a seed of its own.

        Raises:
            Validation, ShapeMismatch, LimitExceeded, BaseNotFound, CapacityExhausted
        """
        self.store.catch_up()
        if layers is None:
            made = self._maker.one(self._base(base_id), **settings)
        else:
            made = self._maker.chain(layers, [self._base(each.get("base_id")) for each in layers], **settings)
        return self._added(made, also)

    def combine(
        self,
        members: Sequence[Pair],
        *,
        also: Callable[[LoadedModel], Iterable[Change]] = lambda model: (),
        **settings: Any,
    ) -> LoadedModel:
        """A new model whose change of the weight is the sum of weight · change over models of one base.

        It is exact where its rank is that of the members together, else the nearest of its rank; `combined` says how
        near that is.

        Args:
            members: the id of each, and its weight; one may come twice.
            also: what is to be stored together with it.
            settings: `rank`, `dropout`, `name`, `metadata`; `base_id` and the sizes, which are those of the members.

        Raises:
            Validation, LimitExceeded, NonFinite, ModelNotFound, CapacityExhausted
            TemporaryReducedCapacity: while another large change is being decomposed.
        """
        self.store.catch_up()
        return self._added(self._combiner.one(members, **settings), also)

    def upload_base(
        self, layer: Layer, also: Callable[[BaseRecord], Iterable[Change]] = lambda record: ()
    ) -> tuple[BaseRecord, bool]:
        """A frozen layer that models may stand on, named by its content; and whether it is new.

        Args:
            also: what is to be stored together with it.

        Raises:
            LimitExceeded, CapacityExhausted
        """
        weight, bias, dtype = layer
        size = weight.nbytes + (0 if bias is None else bias.nbytes)
        self._maker.must_fit(size, "/weight")
        with self.budget.held(size):
            own = None if bias is None else self._tensor(bias)
            base = Base.of(self._tensor(weight), own, dtype)
        return self.registry.add_base(base, instant().wall, also)

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
        with self.trainings.turn():
            check(self.registry.get(model_id))
            if not force:
                self.trainings.must_be_idle(model_id, "cancel it first, or delete the model with ?force=true")
            self._delete([model_id])

    def delete_all(self, choose: Choose, also: Iterable[Change] = ()) -> None:
        """Forget those of some models that there are, and cancel their jobs and others: all or nothing.

        Args:
            choose: says which models and which jobs, while nobody else accepts any; raises where it is not to be.
            also: what is to be stored together with that.
        """
        with self.trainings.turn():
            model_ids, job_ids = choose()
            self._delete([model_id for model_id in model_ids if model_id in self.registry], job_ids, also)

    def forward(self, model_id: str, x: Array, number: int | None = None) -> Answer:
        """The model's outputs (…, out) for inputs (…, in), all from one published version: now, or the one named.

        Raises:
            ModelNotFound, VersionNotFound
            LimitExceeded: when the outputs would be too large.
        """
        return self.forwards.run(self.registry.loaded(model_id, number), x)

    def train(
        self,
        model_id: str,
        plan: Plan,
        rows: Arrays | None = None,
        also: Callable[[Job], Iterable[Change]] = lambda job: (),
        owner: str = "",
    ) -> Job:
        """Queue a training run; `rows` are those of inline data: `data.x`, `data.y`, `data.weight`, `validation.x` ….

        Args:
            also: what is to be stored together with the job.
            owner: who asks for it, as `Trainings.accept` takes it.

        Raises:
            ModelNotFound, DatasetNotFound, Validation, NonFinite, ShapeMismatch, LimitExceeded, CapacityExhausted
            JobNotFound, StateGone: for a job that cannot be continued.
            TemporaryReducedCapacity, TooManyRequests: when the queue is full, or the owner's share of it.
            Draining: when the service is shutting down.
        """
        self.store.catch_up()
        members = [(self.registry.get(model_id), plan)]
        return self.trainings.accept(members, rows, also=lambda jobs: also(jobs[0]), owner=owner)[0]

    def train_new(
        self,
        common: Mapping[str, Any],
        members: Sequence[tuple[Mapping[str, Any], Plan]],
        rows: Arrays | None = None,
        group: str = "",
        also: Also = lambda jobs: (),
        owner: str = "",
    ) -> list[Job]:
        """Make models on one base, and queue a training run for each on rows that they share: all of it or nothing.

        Args:
            common: what the models have in common, as `create` takes it; each member has settings of its own beside it.
            group: those of one count as one entry of the queue.

        Raises:
            as `create` and `train`
        """
        self.store.catch_up()
        common = dict(common)
        base_id = common.pop("base_id", None)
        made = self._maker.several(self._base(base_id), common, [own for own, _ in members])
        pairs = [(model, plan) for model, (_, plan) in zip(made, members, strict=True)]
        return self.trainings.accept(pairs, rows, group, also, new=made, owner=owner)

    def delete_dataset(self, dataset_id: str) -> None:
        """Forget a data set.

        Raises:
            DatasetNotFound
            DatasetBusy: while a job that has not ended is to be trained on it.
        """
        with self.trainings.turn():
            self.datasets.get(dataset_id)
            self.trainings.must_not_use(dataset_id)
            self.datasets.remove(dataset_id)

    def rank_profile(self, model_id: str, data: Source, rows: Arrays | None = None) -> tuple[Source, list[Reach]]:
        """The data with nothing left open, and the lowest mse on it that any adapter of each rank on the base has.

        Raises:
            ModelNotFound, DatasetNotFound, Validation, NonFinite, ShapeMismatch, LimitExceeded, CapacityExhausted
            TemporaryReducedCapacity: while another profile is computed.
        """
        model = self.registry.loaded(model_id)
        if len(model.spec.layers) > 1:
            raise Validation(f"the profile is that of one layer; model {model_id} has {len(model.spec.layers)}")
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
                return digested(plan, digests(given)).data, rank_profile(model, plan, {**given, **stored})
        finally:
            self._profiling.release()

    def cancel(self, job_id: str, also: Callable[[Job], Iterable[Change]] = lambda job: ()) -> Job:
        """The job, cancelled unless it had ended; its worker stops after the step it is at.

        Args:
            also: what is to be stored together with that.

        Raises:
            JobNotFound
        """
        job, ended = self.trainings.end(job_id, State.CANCELLED, also=also)
        if ended:
            self._stop(job_id)
        return job

    def cancel_all(self, job_ids: Collection[str], also: Iterable[Change] = ()) -> None:
        """Cancel those of the jobs that have not ended: all or none.

        Args:
            also: what is to be stored together with that.
        """
        for job in self.trainings.cancel_all(job_ids, also):
            self._stop(job.id)

    def plan_of(self, job_id: str) -> Plan:
        """What a job was asked to do.

        Raises:
            JobNotFound
        """
        plan: Plan = self.ledger.get(job_id).plan
        return plan

    def _learn(self, news: News) -> None:
        """Take in what other servers wrote."""
        for model_id in self.registry.learn(news):
            self.forwards.forget(model_id)
        self.datasets.learn(news)
        for job_id in self.trainings.sharing.learn(news):
            self._stop(job_id)
        self.sweeps.learn(news)
        self.replies.learn(news)

    def _keep(self) -> None:
        """Hold the jobs that run here, and take over those that nobody has, until the engine is closed."""
        assert self.store.leases is not None, "started only then"
        while not self._closing.wait(self.store.leases.seconds / KEEPS):
            try:
                for job_id in self.trainings.sharing.keep():
                    log.warning("another server has job %s now", job_id)
                    self._stop(job_id)
            except (StorageUnavailable, InsufficientStorage) as error:
                log.warning("the jobs that run here cannot be held: %s", error.detail)
            except Exception:
                log.exception("the jobs that run here cannot be held")

    def _base(self, base_id: str | None) -> Base | None:
        return None if base_id is None else self.registry.base(base_id)

    def _added(self, made: LoadedModel, also: Callable[[LoadedModel], Iterable[Change]]) -> LoadedModel:
        with (
            self.trainings.turn()
        ):  # ids come in the order in which models do: a page of a list ends between two of them
            named = replace(made, id=self.registry.new_id())
            return self.registry.add(named, also=also(named))[0]

    def _delete(self, model_ids: Sequence[str], job_ids: Sequence[str] = (), also: Iterable[Change] = ()) -> None:
        for job in self.trainings.forget(model_ids, job_ids, also):
            self._stop(job.id)
        for model_id in model_ids:
            self.forwards.forget(model_id)

    def _stop(self, job_id: str) -> None:
        self.workers.tell(job_id, pack({"do": "cancel", "job": job_id}))

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        """A copy where the engine computes."""
        return torch.from_numpy(np.array(array)).to(self.device)
