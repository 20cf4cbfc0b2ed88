"""A registry keeps versions of its models, in memory or in a store, and each is what it was."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ModelNotFound, TemporaryReducedCapacity, VersionNotFound
from service.models.budget import Budget
from service.models.model import LoadedModel
from service.models.registry import Registry
from service.models.sql import SqlStore
from service.training.plan import Plan
from service.training.sources import Random
from tests.models.layers import NOW, base, filled, model, trained

ID = "mdl_00000000000000000000000001"
BASE_BYTES = base().nbytes
ADAPTER_BYTES = model().nbytes
PLAN = Plan(seed=1, data=Random(seed=1))


@contextmanager
def registry(kind: str, folder: Path, most: int = 2, budget: Budget | None = None) -> Iterator[Registry]:
    """A registry in memory alone, or with a store."""
    kept = {"keep_versions": most}
    if kind == "memory":
        yield Registry(100, budget or Budget(2**30), **kept)
        return
    with closing(SqlStore(f"sqlite:///{folder / 'lora.db'}")) as store:
        yield Registry(100, budget or Budget(2**30), store, **kept)


both = pytest.mark.parametrize("kind", ["memory", "store"])


def fill_of(of: LoadedModel) -> float:
    return float(of.adapter["A"].max())


def numbers(held: Registry, model_id: str) -> list[int]:
    return [mark.number for mark in held.get(model_id).kept]


@both
def test_earlier_versions_are_what_they_were_and_the_others_are_not_found(kind, tmp_path):
    with registry(kind, tmp_path) as held:
        held.add(model(ID))
        for number in range(1, 6):
            held.publish(ID, filled(number), trained)
        assert numbers(held, ID) == [3, 4, 5]
        for number in (3, 4, 5):
            there = held.loaded(ID, number)
            assert (there.version, fill_of(there)) == (number, number)
        assert held.loaded(ID, 5) is held.loaded(ID)
        for number in (0, 2, 6, 2**70):
            with pytest.raises(VersionNotFound, match=f"keeps no version {number}; it keeps 5, 4, 3"):
                held.loaded(ID, number)
        with pytest.raises(ModelNotFound):
            held.loaded("mdl_2", 0)


@both
def test_the_best_is_kept_though_it_is_old(kind, tmp_path):
    with registry(kind, tmp_path, most=1) as held:
        held.add(model(ID))
        for number, loss in enumerate((0.3, 0.1, 0.2, 0.4, 0.5), 1):
            held.publish(ID, filled(number), lambda of, loss=loss: trained(of, loss))
        assert numbers(held, ID) == [2, 4, 5]
        assert fill_of(held.loaded(ID, 2)) == 2
        held.publish(ID, filled(6), lambda of: trained(of, 0.1))
        assert numbers(held, ID) == [5, 6]


@both
def test_what_is_known_of_a_version_is_told_as_it_was_given(kind, tmp_path):
    with registry(kind, tmp_path) as held:
        held.add(model(ID))
        known = {"job_id": "job_1", "plan": PLAN, "loss": 0.5}
        held.publish(ID, filled(1), lambda of: of.next(NOW, "training", **known))
        held.publish(ID, filled(2), lambda of: of.next(NOW, "import"))
        of, (first, second, third) = held.versions(ID)
        assert of is held.get(ID)
        assert (first.number, first.origin, first.parent) == (0, "created", None)
        assert (second.number, second.origin, second.parent, second.created_at) == (1, "training", 0, NOW)
        assert {name: getattr(second, name) for name in known} == known
        assert (third.number, third.origin, third.parent, third.loss, third.plan) == (2, "import", 1, None, None)
        used = held.budget.used
        with held.version(ID, 1) as (version, adapter):
            assert held.budget.used == used + ADAPTER_BYTES * (kind == "store")
            assert version == second
            assert float(adapter["A"].max()) == 1
        assert held.budget.used == used


def test_versions_in_memory_are_counted_and_go_with_their_model():
    held = Registry(100, Budget(2**30), keep_versions=2)
    held.add(model(ID))
    counted = []
    for number in range(1, 5):
        held.publish(ID, filled(number), lambda of: of.next(NOW, "import"))
        counted.append((held.budget.used - BASE_BYTES) // ADAPTER_BYTES)
    assert counted == [2, 3, 3, 3]
    held.remove(ID)
    assert held.budget.used == 0


def test_where_memory_is_full_an_old_version_goes_and_no_publication_fails():
    budget = Budget(BASE_BYTES + 3 * ADAPTER_BYTES)
    held = Registry(100, budget, keep_versions=9)
    held.add(model(ID))
    for number, loss in enumerate((0.1, 0.2, 0.3, 0.4), 1):
        held.publish(ID, filled(number), lambda of, loss=loss: trained(of, loss))
    assert numbers(held, ID) == [1, 3, 4]  # the best goes last
    assert budget.used == budget.max_bytes
    held.remove(ID)
    held.add(model(ID))
    budget.take(2 * ADAPTER_BYTES)
    held.publish(ID, filled(1), trained)
    assert (numbers(held, ID), budget.used) == ([1], budget.max_bytes)
    assert fill_of(held.loaded(ID, 1)) == 1
    with pytest.raises(VersionNotFound):
        held.loaded(ID, 0)


def test_a_version_from_the_store_is_counted_for_as_long_as_somebody_has_it(tmp_path):
    with registry("store", tmp_path) as held:
        held.add(model(ID))
        held.publish(ID, filled(1), trained)
        used = held.budget.used
        there = held.loaded(ID, 0)
        assert held.budget.used == used + ADAPTER_BYTES
        del there
        assert held.budget.used == used


def test_a_version_for_which_there_is_no_memory_is_a_matter_of_time(tmp_path):
    budget = Budget(BASE_BYTES + ADAPTER_BYTES)
    with registry("store", tmp_path, budget=budget) as held:
        held.add(model(ID))
        held.publish(ID, filled(1), trained)
        assert fill_of(held.loaded(ID, 0)) == 1  # in the place of the current one
        assert (budget.used, held.at_hand(ID)) == (0, None)
        budget.take(1)
        with pytest.raises(TemporaryReducedCapacity) as refused:
            held.loaded(ID, 0)
        assert refused.value.facts["reason"] == "no-memory"


def test_with_fewer_versions_to_keep_the_rest_goes_with_the_next_publication(tmp_path):
    with registry("store", tmp_path, most=5) as held:
        held.add(model(ID))
        for number in range(1, 5):
            held.publish(ID, filled(number), lambda of: of.next(NOW, "import"))
    with registry("store", tmp_path, most=1) as held:
        assert numbers(held, ID) == [0, 1, 2, 3, 4]
        held.publish(ID, filled(5), lambda of: of.next(NOW, "import"))
        assert numbers(held, ID) == [4, 5]
        assert [version.number for version in held.versions(ID)[1]] == [4, 5]


@dataclass
class Plain:
    """What a model and its versions must be, as plain values."""

    kept: dict[int, float] = field(default_factory=lambda: {0: 1.0})
    losses: dict[int, float] = field(default_factory=dict)
    version: int = 0

    def publish(self, fill: float, loss: float | None, most: int) -> None:
        self.version += 1
        self.kept[self.version] = fill
        if loss is not None:
            self.losses[self.version] = loss
        best = min(((loss, -n) for n, loss in self.losses.items()), default=(0.0, -self.version))
        spared = {*range(self.version - most, self.version + 1), -best[1]}
        self.kept = {number: fill for number, fill in self.kept.items() if number in spared}


OPERATIONS = st.tuples(st.sampled_from(["train", "import", "roll back"]), st.integers(0, 3))


@settings(max_examples=60)
@given(operations=st.lists(OPERATIONS, max_size=15), most=st.integers(0, 3))
def test_whatever_happens_the_versions_are_those_of_plain_values(operations, most):
    held, plain = Registry(100, Budget(2**30), keep_versions=most), Plain()
    held.add(model(ID))
    for number, (what, which) in enumerate(operations, 2):
        loss, old = which / 10, list(plain.kept)[which % len(plain.kept)]
        if what == "train":
            held.publish(ID, filled(number), lambda of, loss=loss: trained(of, loss))
            plain.publish(number, loss, most)
        elif what == "import":
            held.publish(ID, filled(number), lambda of: of.next(NOW, "import"))
            plain.publish(number, None, most)
        else:
            with held.version(ID, old) as (version, adapter):
                held.publish(ID, adapter, lambda of, version=version: of.rolled_back(NOW, version))
            plain.publish(plain.kept[old], None, most)
        assert {number: fill_of(held.loaded(ID, number)) for number in numbers(held, ID)} == plain.kept
        assert [version.number for version in held.versions(ID)[1]] == list(plain.kept)
        assert held.budget.used == BASE_BYTES + ADAPTER_BYTES * len(plain.kept)
