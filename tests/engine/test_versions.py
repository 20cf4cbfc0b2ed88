"""Each publication keeps what was before it, and a model goes back to that by going on."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.engine import Capacity, Engine
from service.errors import ModelBusy, ModelNotFound, StateGone, TemporaryReducedCapacity, VersionNotFound
from service.models.model import Model
from service.models.sql import SqlStore
from service.models.versions import Version, best
from service.training.digests import digest_of
from service.training.plan import Plan
from service.training.sources import Random
from tests.engine.engines import ENDLESS, SHORT, running, small, until_ended, until_ready
from tests.running import nursery, until

X = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)


def adapter(fill: float) -> dict[str, np.ndarray]:
    return {"A": np.full((4, 64), fill, np.float32), "B": np.ones((64, 4), np.float32)}


def numbers(engine: Engine, model: Model) -> list[int]:
    return [mark.number for mark in engine.registry.get(model.id).kept]


def known(engine: Engine, model: Model) -> list[Version]:
    return engine.registry.versions(model.id)[1]


def outputs(engine: Engine, model: Model, number: int | None = None) -> np.ndarray:
    return engine.forward(model.id, X, number).outputs


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """The same outputs, perhaps by merged weights."""
    return np.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_trainings_leave_their_versions_with_their_lineage_behind(engine):
    model = small(engine)
    before, jobs = [outputs(engine, model)], []
    for seed in range(3):
        plan = replace(SHORT, seed=seed, data=Random(n_samples=20, seed=seed))
        jobs.append(until_ended(engine, engine.train(model.id, plan)))
        before.append(outputs(engine, model))
    first, *trained = known(engine, model)
    assert first == Version.first(model.created_at)
    assert [
        (of.number, of.parent, of.origin, of.job_id, of.plan, of.loss, of.created_at, of.data_digest) for of in trained
    ] == [
        (at, at - 1, "training", job.id, job.plan, job.metrics["final_loss"], job.finished_at, digest_of(job.plan.data))
        for at, job in enumerate(jobs, 1)
    ]
    for number, then in enumerate(before):
        assert near(outputs(engine, model, number), then)
        assert engine.forward(model.id, X, number).model_version == number


def test_a_job_publishes_though_there_is_no_memory_for_what_was_before_it():
    with running(keep_versions=5) as engine:
        model = small(engine)
        engine.budget.take(engine.budget.max_bytes - engine.budget.used)
        for version in (1, 2):
            assert until_ended(engine, engine.train(model.id, SHORT)).model_version == version
            assert numbers(engine, model) == [version]
        assert engine.budget.used == engine.budget.max_bytes


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_so_many_earlier_versions_are_kept_and_the_best_however_old_it_is(keep):
    with running(keep_versions=keep) as engine:
        model = small(engine)
        good = until_ended(engine, engine.train(model.id, Plan(epochs=300, data=Random(n_samples=20, seed=1))))
        for _ in range(5):
            engine.adapters.adopt(model.id, adapter(0.5))
        bad = until_ended(engine, engine.train(model.id, Plan(epochs=1, data=Random(n_samples=20, seed=1))))
        assert good.metrics["final_loss"] < bad.metrics["final_loss"]
        assert numbers(engine, model) == [1, *range(7 - keep, 8)]
        assert best(engine.registry.get(model.id).kept).number == 1
        assert engine.adapters.roll_back(model.id, 1).version == 8


def test_a_rollback_is_a_new_version_with_the_old_weights():
    engine = Engine()
    model = small(engine)
    before = outputs(engine, model)
    engine.adapters.adopt(model.id, adapter(0.5))
    between = outputs(engine, model)
    back = engine.adapters.roll_back(model.id)
    assert (back.version, back.revision, back.last_loss) == (2, 2, None)
    assert near(outputs(engine, model), before)
    assert near(outputs(engine, model, 1), between)
    assert [(of.number, of.origin, of.parent) for of in known(engine, model)] == [
        (0, "created", None),
        (1, "import", 0),
        (2, "rollback", 0),
    ]
    again = engine.adapters.roll_back(model.id)
    assert near(outputs(engine, again), between)
    assert known(engine, model)[-1].parent == 1


def test_a_rollback_has_the_loss_of_its_weights_and_the_model_that_of_its_last_job(engine):
    model = small(engine)
    first, second = (until_ended(engine, engine.train(model.id, SHORT)).metrics["final_loss"] for _ in range(2))
    back = engine.adapters.roll_back(model.id, 1)
    assert (known(engine, model)[-1].loss, back.last_loss) == (first, second)
    assert best(back.kept).number in (1, 2)  # which trainings published


def test_what_cannot_be_gone_back_to_changes_nothing():
    engine = Engine()
    model = small(engine)
    with pytest.raises(VersionNotFound, match="keeps no version before the current one, which is 0"):
        engine.adapters.roll_back(model.id)
    with pytest.raises(VersionNotFound, match="keeps no version 1; it keeps 0"):
        engine.adapters.roll_back(model.id, 1)
    with pytest.raises(ModelNotFound):
        engine.adapters.roll_back("mdl_0")
    assert (engine.registry.get(model.id).version, numbers(engine, model)) == (0, [0])


def test_a_model_with_a_job_goes_back_to_nothing(engine):
    model = small(engine)
    engine.adapters.adopt(model.id, adapter(0.5))
    job = engine.train(model.id, ENDLESS)
    with pytest.raises(ModelBusy, match=f"job {job.id} is .*; cancel it, or wait until it has ended"):
        engine.adapters.roll_back(model.id)
    engine.cancel(job.id)
    assert engine.adapters.roll_back(model.id).version == 2


def test_after_a_rollback_no_job_goes_on_from_before_it(engine):
    model = small(engine)
    job = until_ended(engine, engine.train(model.id, SHORT))
    going_on = replace(SHORT, continue_from=job.id)
    engine.adapters.adopt(model.id, adapter(0.5))
    engine.adapters.roll_back(model.id, 1)  # the weights are those of the job, and the version is another
    with pytest.raises(StateGone, match=r"left version 1 .* is at version 3"):
        engine.train(model.id, going_on)


def test_a_training_after_a_rollback_begins_from_its_weights(engine):
    model = small(engine)
    plan = replace(SHORT, seed=1)
    first = until_ended(engine, engine.train(model.id, plan))
    engine.adapters.roll_back(model.id, 0)
    again = until_ended(engine, engine.train(model.id, plan))
    assert again.losses == first.losses
    assert (known(engine, model)[-1].parent, again.model_version) == (2, 3)


def test_an_earlier_version_leaves_the_merged_weights_of_the_current_one_alone():
    engine = Engine()
    model = small(engine)
    engine.adapters.adopt(model.id, adapter(0.5))
    for _ in range(3):
        outputs(engine, model)
    (kept,) = engine.forwards.merged._kept.values()
    for _ in range(3):
        outputs(engine, model, 0)
    assert [*engine.forwards.merged._kept.values()] == [kept]
    assert kept.source is engine.registry.loaded(model.id).maps


def test_a_restart_finds_versions_and_lineage_as_they_were(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/lora.db"
    with Engine(Capacity(keep_versions=3), store=SqlStore(url), nursery=nursery()) as engine:
        until_ready(engine)
        model = small(engine)
        for _ in range(3):
            until_ended(engine, engine.train(model.id, SHORT))
        engine.adapters.adopt(model.id, adapter(0.5))
        engine.adapters.roll_back(model.id, 2)
        before, kept = known(engine, model), numbers(engine, model)
        gave = {number: outputs(engine, model, number) for number in kept}
    with closing(Engine(Capacity(keep_versions=3), store=SqlStore(url))) as again:
        assert known(again, model) == before
        assert again.budget.used == 0
        for number, then in gave.items():
            assert near(outputs(again, model, number), then)
        assert near(outputs(again, model), outputs(again, model, 2))
        assert again.adapters.roll_back(model.id).version == 6


def test_without_memory_for_them_old_weights_are_a_matter_of_time(tmp_path: Path):
    with closing(Engine(store=SqlStore(f"sqlite:///{tmp_path}/lora.db"))) as engine:
        model = small(engine)
        engine.adapters.adopt(model.id, adapter(0.5))
        engine.budget.take(engine.budget.max_bytes - engine.budget.used)
        with pytest.raises(TemporaryReducedCapacity):
            engine.adapters.roll_back(model.id)
        assert engine.registry.get(model.id).version == 1


@pytest.mark.parametrize("stored", [False, True])
def test_readers_of_a_version_get_its_weights_while_others_are_published(stored: bool, tmp_path: Path):
    store = SqlStore(f"sqlite:///{tmp_path}/lora.db") if stored else None
    with closing(Engine(Capacity(keep_versions=2), store=store)) as engine:
        model, over = small(engine), threading.Event()
        before, used = outputs(engine, model), engine.budget.used

        def publish() -> int:
            try:
                for fill in range(1, 80):
                    engine.adapters.adopt(model.id, adapter(fill))
                    if fill % 10 == 0:
                        engine.adapters.roll_back(model.id, engine.registry.get(model.id).version)  # the same once more
                        engine.adapters.adopt(model.id, adapter(fill))
            finally:
                over.set()
            return fill

        def expected(of: float) -> np.ndarray:
            return before + np.outer(X.sum(1) * of * 4, np.ones(64))

        def read() -> int:
            right = 0
            while not over.is_set():
                for mark in engine.registry.get(model.id).kept[1:]:
                    try:
                        there = engine.registry.loaded(model.id, mark.number)
                    except VersionNotFound:  # gone meanwhile
                        continue
                    assert there.version == mark.number
                    fill = float(there.adapter["A"][0, 0])
                    assert np.allclose(there.maps(X), expected(fill) if mark.number else before, rtol=1e-3, atol=1e-2)
                    seen.setdefault(mark.number, fill)
                    assert seen[mark.number] == fill
                    right += 1
            return right

        seen: dict[int, float] = {}
        with ThreadPoolExecutor(3) as threads:
            readers = [threads.submit(read) for _ in range(2)]
            threads.submit(publish).result()
            assert sum(reader.result() for reader in readers)
        until(lambda: engine.budget.used == used + (0 if stored else 2 * model.nbytes))
