"""Sweeps: many models on one base, trained together on one data set, and compared by their held-out loss."""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from math import inf
from typing import Any, Protocol

from service.clock import instant
from service.codecs.message import Arrays
from service.engine.settled import SEEDS
from service.engine.trainings import Also
from service.errors import JobNotFound, ServiceError, SweepBusy, SweepNotFound
from service.ids import Mint
from service.jobs.job import Job
from service.jobs.ledger import Ledger
from service.models import sweep_rows
from service.models.registry import Registry
from service.models.store import Change, News, Store
from service.training.plan import Plan

KEPT = 1_000  # sweeps remembered; the oldest go first

Choose = Callable[[], tuple[Sequence[str], Sequence[str]]]  # ids of models and of jobs


@dataclass(frozen=True)
class Trial:
    """What one member tries: its `settings` in words, those of its model beside the common ones, and its plan."""

    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    plan: Plan


@dataclass(frozen=True)
class Member:
    """One model of a sweep, and the job that trains it."""

    model_id: str
    job_id: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """What was tried in one go."""

    id: str
    members: tuple[Member, ...]
    created_at: datetime


@dataclass(frozen=True)
class Standing:
    """How a member stands; `loss` is its validation loss, None before its first epoch, `job` None when forgotten."""

    member: Member
    job: Job | None
    loss: float | None


class Trainer(Protocol):
    """What makes, trains and deletes the models."""

    ledger: Ledger
    registry: Registry
    store: Store

    def train_new(
        self,
        common: Mapping[str, Any],
        members: Sequence[tuple[Mapping[str, Any], Plan]],
        rows: Arrays | None,
        group: str,
        also: Also,
        owner: str,
    ) -> list[Job]: ...

    def cancel_all(self, job_ids: Collection[str], also: Iterable[Change] = ()) -> None: ...

    def delete_all(self, choose: Choose, also: Iterable[Change] = ()) -> None: ...


class Sweeps:
    """The sweeps that were started, by id."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._sweeps: dict[str, Sweep] = {sweep.id: sweep for sweep in _read(trainer.store)}
        self._lock = threading.Lock()
        self._new_id = Mint("swp", self._sweeps)

    def start(
        self,
        model: Mapping[str, Any],
        trials: Sequence[Trial],
        rows: Arrays | None = None,
        also: Callable[[Sweep], Iterable[Change]] = lambda sweep: (),
        owner: str = "",
    ) -> Sweep:
        """Make a model for each of the settings and train all of them, or none.

        Args:
            model: what the models have in common, as `Engine.create` takes it; the base begins from its seed.
            trials: one for each member. All plans get one seed, hence the same rows.
            also: what is to be stored together with it.
            owner: who asks for it, as `Trainings.accept` takes it.

        Raises:
            as `Engine.create` and `Engine.train`
        """
        sweep_id, seed, at = self._new_id(), secrets.randbelow(SEEDS), instant().wall
        base_seed = seed if model.get("seed") is None else model["seed"]
        members = [
            (trial.model, trial.plan if trial.plan.seed is not None else replace(trial.plan, seed=seed))
            for trial in trials
        ]

        def sweep_of(jobs: Sequence[Job]) -> Sweep:
            both = zip(jobs, trials, strict=True)
            return Sweep(sweep_id, tuple(Member(job.model_id, job.id, trial.settings) for job, trial in both), at)

        def stored(jobs: Sequence[Job]) -> Iterator[Change]:
            sweep = sweep_of(jobs)
            yield from sweep_rows.added(sweep_id, [asdict(member) for member in sweep.members], at)
            yield from also(sweep)

        common = {**model, "seed": base_seed, "base_seed": base_seed}
        sweep = sweep_of(self._trainer.train_new(common, members, rows, sweep_id, stored, owner))
        with self._lock:
            self._sweeps[sweep_id] = sweep
        if len(self._sweeps) > KEPT:
            with suppress(ServiceError), self._trainer.store.turn(), self._lock:  # else the next one makes them go
                while len(self._sweeps) > KEPT:
                    self._forget(next(iter(self._sweeps)))
        return sweep

    def get(self, sweep_id: str) -> Sweep:
        """The sweep.

        Raises:
            SweepNotFound
        """
        try:
            return self._sweeps[sweep_id]
        except KeyError:
            raise SweepNotFound(f"there is no sweep {sweep_id}; GET /sweeps lists those there are") from None

    def all(self) -> list[Sweep]:
        """Every sweep, oldest first."""
        with self._lock:
            return [self._sweeps[sweep_id] for sweep_id in sorted(self._sweeps)]  # learnt in another order

    def learn(self, news: News) -> None:
        """Take in what other servers did to sweeps."""
        with self._lock:
            ids = news.of("sweeps", self._sweeps)
            for sweep_id in ids:
                self._sweeps.pop(sweep_id, None)
            for sweep in _read(self._trainer.store, id=ids):
                self._sweeps[sweep.id] = sweep
                self._new_id.saw(sweep.id)

    def standings(self, sweep: Sweep) -> list[Standing]:
        """The members, those of the lowest held-out loss first, and at last those that failed."""
        return sorted((self._standing(member) for member in sweep.members), key=_rank)

    def cancel(self, sweep_id: str, also: Callable[[Sweep], Iterable[Change]] = lambda sweep: ()) -> Sweep:
        """The sweep, whose members are cancelled unless they had ended; its models stay, and keep their versions.

        Args:
            also: what is to be stored together with that.

        Raises:
            SweepNotFound
        """
        sweep = self.get(sweep_id)
        self._trainer.cancel_all({member.job_id for member in sweep.members}, also(sweep))
        return sweep

    def remove(self, sweep_id: str, *, keep: int = 1, force: bool = False) -> None:
        """Forget a sweep and delete its models but for the best of them, and those whose jobs were forgotten.

        Args:
            keep: how many models stay.
            force: cancel what has not ended.

        Raises:
            SweepNotFound
            SweepBusy: while a member has not ended, unless `force`.
        """

        def chosen() -> tuple[list[str], list[str]]:
            standings = self.standings(self.get(sweep_id))
            there = [standing for standing in standings if standing.member.model_id in self._trainer.registry]
            # Nobody knows any longer how good a forgotten one was, so it stays.
            losers = [standing.member.model_id for standing in there[keep:] if standing.job is not None]
            members = [of.job for of in standings if of.job is not None and not of.job.state.terminal]
            later = [job for model_id in losers for job in self._trainer.ledger.active(model_id)]  # by users
            active = {job.id for job in (*members, *later)}
            if active and not force:
                raise SweepBusy(
                    f"{len(active)} jobs on models of sweep {sweep_id} have not ended; "
                    "wait for them, or cancel them with POST /sweeps/{id}/cancel, which keeps all models; ?force=true "
                    f"cancels them and deletes all models but the best, of which ?keep={keep} stay"
                )
            return losers, [*active]

        with self._trainer.store.turn(), self._lock:
            self._trainer.delete_all(chosen, sweep_rows.removed(sweep_id))
            self._sweeps.pop(sweep_id, None)

    def _forget(self, sweep_id: str) -> None:
        self._trainer.store.write(sweep_rows.removed(sweep_id))
        self._sweeps.pop(sweep_id, None)

    def _standing(self, member: Member) -> Standing:
        try:
            job = self._trainer.ledger.get(member.job_id)
        except JobNotFound:
            return Standing(member, None, None)
        curve = job.curve("validation_losses")
        latest = curve[-1] if len(curve) else None
        return Standing(member, job, job.metrics.get("validation_loss", latest))


def _read(store: Store, **where: Any) -> Iterator[Sweep]:
    for sweep_id, members, at in sweep_rows.sweeps(store, **where):
        yield Sweep(sweep_id, tuple(Member(**member) for member in members), at)


def _rank(standing: Standing) -> tuple[bool, float]:
    failed = standing.job is None or (standing.job.state.terminal and "validation_loss" not in standing.job.metrics)
    return failed, inf if standing.loss is None else standing.loss
