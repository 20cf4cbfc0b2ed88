"""A data set grows by new values; what was read of an old one stays as it was."""

import gc
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.datasets import Datasets, read
from service.errors import CapacityExhausted, DatasetNotFound
from service.models.budget import Budget
from service.models.dataset import Dataset
from service.models.shelf import Shelf

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rows(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {"x": draw.standard_normal((n, 3), np.float32), "y": draw.standard_normal((n, 2), np.float32)}


def dataset(n: int, keep_rows: bool = True, dataset_id: str = "dat_1") -> Dataset:
    sent = read(rows(n), 2**20, keep_rows)
    made = Dataset(
        id=dataset_id,
        source=replace(sent.source, id=dataset_id),
        columns=sent.rows if keep_rows else {},
        moments=sent.moments,
        created_at=NOW,
        updated_at=NOW,
    )
    assert made.nbytes == sent.nbytes
    return made


@settings(max_examples=50)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.booleans())
def test_every_value_keeps_its_rows_while_later_ones_grow(sizes, keep_rows):
    values = [dataset(sizes[0], keep_rows)]
    expected = [{name: array.copy() for name, array in values[0].arrays().items()}]
    size = values[0].nbytes
    for seed, n in enumerate(sizes[1:], start=1):
        sent = read(rows(n, seed), 2**20, keep_rows)
        size += values[-1].room_needed(sent.source)
        values.append(values[-1].grown(sent.rows, sent.source, sent.moments, NOW))
        expected.append({name: array.copy() for name, array in values[-1].arrays().items()})
        assert values[-1].nbytes == size
    whole = read(
        {name: np.concatenate([rows(n, seed)[name] for seed, n in enumerate(sizes)]) for name in "xy"}, 2**20, True
    )
    for value, arrays in zip(values, expected, strict=True):
        assert all(np.array_equal(array, arrays[name]) for name, array in value.arrays().items())
    last = values[-1]
    assert last.source.n_samples == sum(sizes)
    assert np.allclose(last.moments.xx, whole.moments.xx)
    assert np.allclose(last.moments.xy, whole.moments.xy)
    if keep_rows:
        assert all(np.array_equal(last.arrays()[name], whole.rows[name]) for name in "xy")
    else:
        assert set(last.arrays()) == {f"moments.{name}" for name in ("counts", "x_mean", "y_mean", "xx", "xy")}
        assert last.nbytes == values[0].nbytes


def test_a_shelf_counts_what_it_holds_and_no_more_than_it_may():
    budget = Budget(10_000)
    shelf = Shelf(2, budget)
    first = dataset(10)
    shelf.add(lambda: first, first.nbytes)
    assert (len(shelf), shelf.all(), budget.used) == (1, [first], first.nbytes)
    with pytest.raises(CapacityExhausted, match="bytes"):
        shelf.add(lambda: dataset(10), 20_000)
    other = dataset(5, dataset_id="dat_2")
    shelf.add(lambda: other, other.nbytes)
    with pytest.raises(CapacityExhausted, match="LORA_MAX_DATASETS"):
        shelf.add(lambda: dataset(5), 0)
    used = budget.used
    with pytest.raises(CapacityExhausted):
        shelf.grow("dat_1", lambda value: 20_000, lambda value: value)
    with pytest.raises(ZeroDivisionError):
        shelf.grow("dat_1", lambda value: 100, lambda value: 1 / 0)
    assert budget.used == used
    assert shelf.get("dat_1") is first
    for each in ("dat_1", "dat_2"):
        shelf.remove(each)
    assert budget.used == 0
    with pytest.raises(DatasetNotFound):
        shelf.get("dat_1")


def test_moments_that_a_waiting_job_holds_are_counted_until_it_lets_go():
    budget = Budget(2**20)
    datasets = Datasets(2, 2**19, budget)
    first = datasets.upload(rows(5), keep_rows=False)
    one = budget.used
    held = first.arrays()
    del first
    datasets.append(datasets.all()[0].id, rows(5, 1))
    gc.collect()
    assert budget.used == 2 * one
    del held
    gc.collect()
    assert budget.used == one


def test_an_upload_is_refused_before_its_moments_are_gathered():
    wide = {"x": np.zeros((1, 2_000), np.float32), "y": np.zeros((1, 1), np.float32)}
    datasets = Datasets(2, 2**30, Budget(2**20))
    tracemalloc.start()
    with pytest.raises(CapacityExhausted):
        datasets.upload(wide)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert datasets.budget.used == 0
