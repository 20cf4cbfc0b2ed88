"""Models and jobs as the world sees them."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from service.engine import Engine
from service.engine.sweeps import Standing, Sweep
from service.errors import ModelNotFound
from service.jobs import thinned
from service.jobs.job import Job
from service.lora.spec import AnySpec
from service.models.base import BaseRecord
from service.models.dataset import Dataset
from service.models.model import Model
from service.models.versions import Mark, Version, best
from service.schemas import answers, training, versions
from service.training import plan

# What may be set of a layer, and what each layer of a chain has for itself.
SETTINGS = (
    "rank",
    "alpha",
    "scaling",
    "use_rslora",
    "use_dora",
    "init",
    "dropout",
    "bias",
    "train_bias",
)
OF_EACH_LAYER = ("rank", "alpha", "scaling", "bias")


def of_model(model: Model, *, durable: bool) -> answers.Model:
    """A model's settings with their effective values, its version and its counts."""
    spec = model.spec
    several = len(spec.layers) > 1
    return answers.Model(
        in_features=spec.in_features,
        out_features=spec.out_features,
        **_settings(spec),
        id=model.id,
        base_id=model.base_id,
        seed=model.seed,
        name=model.name,
        metadata=model.metadata,
        version=model.version,
        parameters=_counts(spec),
        bytes=model.nbytes,
        created_at=model.created_at,
        updated_at=model.updated_at,
        last_loss=model.last_loss,
        combined=None if model.combined is None else answers.Combined(**asdict(model.combined)),
        durable=durable,
        layers=[_layer(model, place) for place in range(len(spec.layers))] if several else None,
    )


def _settings(spec: AnySpec) -> dict[str, Any]:
    """What is set of a layer; of several, what they have in common, and null where each has its own."""
    first = {name: getattr(spec.layers[0], name) for name in SETTINGS}
    return first if len(spec.layers) == 1 else {**first, **dict.fromkeys(OF_EACH_LAYER)}


def _layer(model: Model, place: int) -> answers.Layer:
    spec, last = model.spec.layers[place], place == len(model.spec.layers) - 1
    return answers.Layer(
        base_id=model.base_ids[place],
        in_features=spec.in_features,
        out_features=spec.out_features,
        bias=spec.bias,
        activation=None if last else model.spec.activations[place],
        **{name: getattr(spec, name) for name in ("rank", "alpha", "scaling")},
        parameters=_counts(spec),
    )


def _counts(spec: AnySpec) -> answers.Parameters:
    counts = spec.parameters
    return answers.Parameters(
        trainable=counts.trainable,
        frozen=counts.frozen,
        total=counts.total,
        trainable_percent=counts.trainable_percent,
    )


def of_versions(model: Model, known: Sequence[Version]) -> versions.VersionPage:
    """The versions of a model that are kept, newest first."""
    lowest = best(model.kept)
    return versions.VersionPage(items=[_version(model, version, lowest) for version in reversed(known)])


def _version(model: Model, version: Version, lowest: Mark | None) -> versions.Version:
    return versions.Version(
        version=version.number,
        created_at=version.created_at,
        origin=version.origin,
        parent=version.parent,
        job_id=version.job_id,
        data_digest=version.data_digest,
        plan=None if version.plan is None else plan.as_dict(version.plan),
        loss=version.loss,
        validation_loss=version.validation_loss,
        current=version.number == model.version,
        best=lowest is not None and version.number == lowest.number,
        bytes=model.nbytes,
    )


def of_base(engine: Engine, record: BaseRecord) -> answers.Base:
    """What is known of a base, and how many models stand on it."""
    return answers.Base(
        **asdict(record), bytes=record.nbytes, models=engine.registry.models_on(record.id), durable=engine.store.durable
    )


def of_dataset(dataset: Dataset, *, durable: bool) -> training.Dataset:
    """What a data set holds."""
    source = dataset.source
    return training.Dataset(
        id=dataset.id,
        in_features=source.in_features,
        out_features=source.out_features,
        targets=source.targets,
        weighted=source.weighted,
        n_samples=source.n_samples,
        keep_rows=source.kept,
        moments=source.gathered,
        bytes=dataset.nbytes,
        created_at=dataset.created_at,
        updated_at=dataset.updated_at,
        durable=durable,
    )


def of_sweep(engine: Engine, sweep: Sweep) -> training.Sweep:
    """The leaderboard of a sweep as it is now."""
    standings = engine.sweeps.standings(sweep)
    board = [_standing(engine, place, standing) for place, standing in enumerate(standings, start=1)]
    going = any(standing.job is not None and not standing.job.state.terminal for standing in standings)
    return training.Sweep(
        id=sweep.id,
        state="running" if going else "ended",
        created_at=sweep.created_at,
        counts=dict(Counter(standing.state for standing in board)),
        leaderboard=board,
    )


def _standing(engine: Engine, place: int, standing: Standing) -> training.Standing:
    member, job = standing.member, standing.job
    trainable = None
    with suppress(ModelNotFound):  # deleted by hand
        trainable = engine.registry.get(member.model_id).spec.parameters.trainable
    return training.Standing(
        place=place,
        model_id=member.model_id,
        job_id=member.job_id,
        state="forgotten" if job is None else str(job.state),
        settings=dict(member.settings),
        trainable=trainable,
        epoch=0 if job is None else job.epoch,
        validation_loss=standing.loss,
        final_loss=None if job is None else job.metrics.get("final_loss"),
    )


def of_job(job: Job, points: int | None = None) -> training.Job:
    """A job's record, with the losses so far, or with so many points of its curves at most."""
    curves = {name: job.curve(name) for name in job.curves}
    epochs = None if points is None or job.epoch <= points else thinned.epochs_of(list(curves.values()), points)
    if epochs is not None:
        curves = {name: [curve[epoch - 1] for epoch in epochs] for name, curve in curves.items()}
    return training.Job(
        id=job.id,
        model_id=job.model_id,
        state=job.state,
        reason=job.reason,
        detail=job.detail,
        epochs=job.epochs,
        epoch=job.epoch,
        losses=list(curves.get("losses", ())),
        validation_losses=_listed(curves.get("validation_losses")),
        accuracies=_listed(curves.get("accuracies")),
        validation_accuracies=_listed(curves.get("validation_accuracies")),
        curve_epochs=epochs,
        path=job.plan.path,
        together=job.together,
        plan=plan.as_dict(job.plan),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        duration_seconds=job.duration_seconds,
        model_version=job.model_version,
        metrics=dict(job.metrics),
    )


def _listed(curve: Sequence[float] | None) -> list[float] | None:
    return None if curve is None else list(curve)
