"""A small world in a database, with something for every write to change, and all that can be seen of it."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.codecs.message import Arrays
from service.engine import Capacity, Engine
from service.engine.run import Run
from service.engine.sweeps import Trial
from service.models.replies import Reply
from service.models.sql import SqlStore
from service.models.tables import METADATA
from service.training.plan import Plan
from service.training.sources import Inline, Random

SIZES = {"in_features": 8, "out_features": 4, "rank": 2}
KEEP_VERSIONS = 1
PLAN = Plan(epochs=3, seed=1, data=Random(n_samples=10))
HELD_OUT = replace(PLAN, validation=0.5)
FACTS = {"path": "batch", "epoch": 2, "steps": 2, "over": False, "watched": {}}
GOES_ON = ("queued", "running")
LASTING = ("models", "bases", "datasets", "sweeps", "replies")
REPLY = Reply("fingerprint", "mdl_1", 201, body=b"{}")


@dataclass(frozen=True)
class World:
    """An engine without workers, what is in it by name, and the run of its one job that has begun."""

    engine: Engine
    ids: Mapping[str, str]
    run: Run


def rows(n: int = 20, prefix: str = "") -> Arrays:
    """Rows for a model of these sizes, in whole numbers: their sums are exact in any order."""
    draw = np.random.default_rng(n)
    sizes = {"x": SIZES["in_features"], "y": SIZES["out_features"]}
    return {prefix + name: draw.integers(-3, 4, (n, size)).astype(np.float32) for name, size in sizes.items()}


def inline(n: int = 20) -> tuple[Plan, Arrays]:
    """A plan on rows that travel with it."""
    return replace(PLAN, data=Inline(n_samples=n, targets="numbers")), rows(n, "data.")


def succeed(run: Run, fill: float = 0.5) -> None:
    """What a worker says at the end of a run."""
    state = {f"state.{name}": np.full(3, fill) for name in ("parameters", "curves.losses")}
    adapter = {
        name: np.full((height, width), fill, np.float32)
        for name, height, width in (("A", SIZES["rank"], SIZES["in_features"]), ("B", SIZES["out_features"], 2))
    }
    run.succeeded({"final_loss": fill, "validation_loss": fill}, dict(FACTS), {**adapter, **state})


def imported(fill: float = 0.25) -> Arrays:
    """An adapter that comes from outside."""
    shapes = {"A": (SIZES["rank"], SIZES["in_features"]), "B": (SIZES["out_features"], SIZES["rank"])}
    return {name: np.full(shape, fill, np.float32) for name, shape in shapes.items()}


def populate(path: Path) -> dict[str, str]:
    """Write the world into a file; the ids of what is in it."""
    engine = Engine(Capacity(keep_versions=KEEP_VERSIONS), store=SqlStore(f"sqlite:///{path}"))
    models = {name: engine.create(**SIZES, seed=seed) for seed, name in enumerate(("alone", "first", "spare"))}
    models["second"] = engine.create(base_id=models["first"].base_id, rank=2, seed=3)
    done = engine.train(models["first"].id, PLAN)
    sweep = engine.sweeps.start(
        {**SIZES, "seed": 4}, [Trial({"lr": lr}, {}, replace(HELD_OUT, lr=lr)) for lr in (0.1, 0.2, 0.3)]
    )
    for number, run in enumerate(engine.queue.take(0, lambda taken, run: True)):
        run.begin(1)
        run.progressed({"losses": [1.0]})
        succeed(run, number + 1.0)
        engine.queue.done([run])
    going = engine.train(models["alone"].id, PLAN)
    waiting = [engine.train(models["second"].id, *inline()) for _ in range(2)]
    dataset = engine.datasets.upload(rows())
    engine.store.write(engine.replies.kept("key", REPLY))
    engine.close()
    ids = {name: model.id for name, model in models.items()}
    jobs = {"done": done.id, "going": going.id, "waiting": waiting[0].id}
    return {**ids, **jobs, "dataset": dataset.id, "sweep": sweep.id}


@contextmanager
def copied(path: Path, folder: Path) -> Iterator[Engine]:
    """An engine on a copy of a database's files as they lie there, as after a kill."""
    folder.mkdir(exist_ok=True)
    for name in (path.name, f"{path.name}-wal"):
        (folder / name).unlink(missing_ok=True)
        if (path.parent / name).exists():
            shutil.copy(path.parent / name, folder / name)
    engine = Engine(Capacity(keep_versions=KEEP_VERSIONS), store=SqlStore(f"sqlite:///{folder / path.name}"))
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def world(path: Path, folder: Path, ids: Mapping[str, str]) -> Iterator[World]:
    """A copy of the world, in which a worker is at its first job and two epochs are done."""
    with copied(path, folder) as engine:
        (run,) = engine.queue.take(0)
        run.begin(1)
        run.progressed({"losses": [2.0, 1.0]})
        try:
            yield World(engine, ids, run)
        finally:
            engine.queue.done([run])  # else the engine waits for it


def snapshot(engine: Engine) -> dict[str, Any]:
    """All that an engine remembers, with places in order instead of ids and without times."""
    models = [engine.registry.loaded(model.id) for model in engine.registry.all()]
    jobs = engine.ledger.all()
    place = {thing.id: number for of in (models, jobs) for number, thing in enumerate(of)}
    return {
        "models": [
            (
                of.name,
                of.metadata,
                of.version,
                of.revision,
                of.last_loss,
                hashed(engine.adapters.weights(of.id)[1]),
                of.kept,
            )
            for of in models
        ],
        "bases": engine.registry.base_count,
        "jobs": [
            (place.get(of.model_id), str(of.state), of.epoch, list(of.losses), of.reason, of.model_version, of.metrics)
            for of in jobs
        ],
        "datasets": [(of.source.n_samples, of.uploads, hashed(of.arrays())) for of in engine.datasets.all()],
        "sweeps": [
            [(place.get(of.model_id), place.get(of.job_id), of.settings) for of in sweep.members]
            for sweep in engine.sweeps.all()
        ],
        "replies": sorted((key, reply.body) for key, reply in engine.replies._replies.items()),
        "queue": len(engine.queue),
    }


def lineage(engine: Engine) -> list[list[tuple[Any, ...]]]:
    """What is known of the versions of each model that are kept, weights included."""
    return [
        [
            (
                of.mark,
                of.origin,
                of.parent,
                of.data_digest,
                of.loss,
                hashed(engine.adapters.weights(model.id, of.number)[1]),
            )
            for of in engine.registry.versions(model.id)[1]
        ]
        for model in engine.registry.all()
    ]


def outliving(seen: Mapping[str, Any]) -> dict[str, Any]:
    """What a restart must not change in a snapshot: how far a job is that goes on may lag behind."""
    jobs = [(model, GOES_ON) if state in GOES_ON else (model, state, *told) for model, state, *told in seen["jobs"]]
    return {**{name: seen[name] for name in LASTING}, "jobs": jobs}


def counted(engine: Engine) -> dict[str, int]:
    """How many rows each table has."""
    tables = [(name, table.primary_key.columns.keys()) for name, table in METADATA.tables.items()]
    return {name: sum(1 for _ in engine.store.rows(name, *keys)) for name, keys in tables}


def hashed(arrays: Arrays) -> str:
    """Stands for arrays and their names."""
    content = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        content.update(f"{name}{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).data)
    return content.hexdigest()[:16]
