"""A job's plan names the rows it learns from, whichever way they came."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.engine import Engine
from service.models.sql import SqlStore
from service.training.digests import digest_of, digest_of_rows
from service.training.plan import Plan
from service.training.sources import Inline, Random
from tests.engine.engines import inline, small


def uploaded(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("data."): array for name, array in rows.items()}


@pytest.mark.parametrize("keep_rows", [True, False])
def test_rows_have_one_name_in_a_request_and_uploaded(keep_rows: bool) -> None:
    engine = Engine()
    model, (plan, rows) = small(engine), inline()
    sent = engine.train(model.id, plan, {name: array.astype(np.float64) for name, array in rows.items()})
    dataset = engine.datasets.upload(uploaded(rows), keep_rows=keep_rows)
    stored = engine.train(model.id, Plan(data=dataset.source))
    name = digest_of_rows(uploaded(rows))
    assert sent.plan.data.digest == dataset.source.digest == stored.plan.data.digest == name
    assert digest_of(sent.plan.data) == name
    assert sent.plan == replace(sent.plan, data=Inline(n_samples=50, targets="numbers", digest=name))


def test_rows_to_validate_on_have_a_name_of_their_own() -> None:
    engine = Engine()
    plan, rows = inline()
    both = {**rows, **{name.replace("data", "validation"): array[:9] for name, array in rows.items()}}
    plan = replace(plan, validation=Inline(n_samples=9, targets="numbers"))
    job = engine.train(small(engine).id, plan, both)
    assert job.plan.data.digest == digest_of_rows(uploaded(rows))
    assert job.plan.validation.digest == digest_of_rows({name: array[:9] for name, array in uploaded(rows).items()})


def test_a_profile_names_its_rows_too() -> None:
    engine = Engine()
    plan, rows = inline()
    source, _ = engine.rank_profile(small(engine).id, plan.data, rows)
    assert source.digest == digest_of_rows(uploaded(rows))
    drawn, _ = engine.rank_profile(small(engine).id, Random(seed=1))
    assert digest_of(drawn) == digest_of(Random(seed=1))


def test_a_data_set_that_grows_gets_another_name_which_a_restart_finds_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lora.db"
    engine = Engine(store=SqlStore(url))
    rows = uploaded(inline()[1])
    dataset = engine.datasets.upload(rows)
    first = engine.train(small(engine).id, Plan(data=dataset.source))
    grown = engine.datasets.append(dataset.id, rows)
    twice = {name: np.concatenate([array, array]) for name, array in rows.items()}
    names = {dataset.source.digest, grown.source.digest, engine.datasets.upload(twice).source.digest}
    assert len(names) == 3  # a chain is named by its uploads
    engine.close()
    again = Engine(store=SqlStore(url))
    assert again.datasets.get(dataset.id).source == grown.source
    assert again.ledger.get(first.id).plan.data.digest == dataset.source.digest
    again.close()
