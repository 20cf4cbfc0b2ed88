"""A registry with a store: what was acknowledged is there again, and memory is a cache."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import StorageUnavailable, TemporaryReducedCapacity
from service.models.budget import Budget
from service.models.history import Adapter
from service.models.model import LoadedModel
from service.models.registry import Registry
from service.models.sql import SqlStore
from service.models.store import MemoryOnly
from tests.models.layers import NOW, base, filled, model, trained

BASE_BYTES = base().nbytes
ADAPTER_BYTES = model().nbytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


def described(held: Registry) -> list[tuple]:
    """All that a registry knows, weights included."""
    loaded = [held.loaded(each.id) for each in held.all()]
    return [
        (
            of.unloaded().__dict__,
            of.base.weight.tolist(),
            None if of.base.bias is None else of.base.bias.tolist(),
            listed(of.adapter),
            [(version, listed(held.loaded(of.id, version.number).adapter)) for version in held.versions(of.id)[1]],
        )
        for of in loaded
    ]


def listed(adapter: Adapter) -> dict[str, list]:
    return {name: tensor.tolist() for name, tensor in adapter.items()}


VERBS = ["add", "remove", "note", "publish", "publish", "roll back", "restart", "load"]
OPERATIONS = st.tuples(st.sampled_from(VERBS), st.integers(0, 3))


@settings(max_examples=40)
@given(operations=st.lists(OPERATIONS, max_size=20), cached=st.integers(1, 4))
def test_a_restart_finds_all_that_was_there_and_memory_keeps_within_its_bytes(folder, operations, cached):
    path = folder / "lora.db"
    path.unlink(missing_ok=True)
    most, keeping = BASE_BYTES + cached * ADAPTER_BYTES, {"keep_versions": 2}
    store = SqlStore(f"sqlite:///{path}")
    held, plain = Registry(100, Budget(2**30), store, most, **keeping), Registry(100, Budget(2**30), **keeping)
    bases = [base(fill=float(n)) for n in range(4)]
    try:
        for number, (what, which) in enumerate(operations):
            ids = [each.id for each in plain.all()]
            model_id = ids[which % len(ids)] if ids else ""
            for registry in (held, plain):
                if what == "add":
                    registry.add(model(f"mdl_{number:026}", bases[which]))
                elif model_id and what == "remove":
                    registry.remove(model_id)
                elif model_id and what == "note":
                    registry.swap(model_id, lambda of: of.noted(NOW, name="ñ", metadata={"a": "b"}))
                elif model_id and what == "publish":
                    registry.publish(model_id, filled(number), trained)
                elif model_id and what == "roll back":
                    with registry.version(model_id, registry.get(model_id).kept[0].number) as (to, adapter):
                        registry.publish(model_id, adapter, lambda of, to=to: of.rolled_back(NOW, to))
                elif model_id and what == "load":
                    registry.loaded(model_id)
            if what == "restart":
                store.close()
                store = SqlStore(f"sqlite:///{path}")
                held = Registry(100, Budget(2**30), store, most, **keeping)
            in_memory = [of for of in held.all() if isinstance(of, LoadedModel)]
            assert held.budget.used == sum(of.nbytes for of in in_memory) + BASE_BYTES * len(
                {of.base_id for of in in_memory}
            )
            assert held.budget.used <= most or len(in_memory) == 1
            assert held.base_count == plain.base_count
        assert described(held) == described(plain)
    finally:
        store.close()


def test_what_is_used_stays_and_what_is_not_goes(folder):
    store = SqlStore(f"sqlite:///{folder / 'cache.db'}")
    held = Registry(100, Budget(2**30), store, BASE_BYTES + 2 * ADAPTER_BYTES)
    for number in range(2):
        held.add(model(f"mdl_{number}"))
    held.loaded("mdl_0")
    held.add(model("mdl_2"))
    assert [held.at_hand(f"mdl_{number}") is not None for number in range(3)] == [True, False, True]
    assert held.loaded("mdl_1").adapter["A"].tolist() == model().adapter["A"].tolist()
    store.close()


def test_a_small_budget_makes_room_too_and_says_when_it_cannot(folder):
    store = SqlStore(f"sqlite:///{folder / 'budget.db'}")
    budget = Budget(BASE_BYTES + ADAPTER_BYTES)
    held = Registry(100, budget, store)
    held.add(model("mdl_0"))
    held.add(model("mdl_1"))
    assert held.at_hand("mdl_0") is None
    held.remove("mdl_1")
    budget.take(1)
    with pytest.raises(TemporaryReducedCapacity) as refused:
        held.loaded("mdl_0")
    assert refused.value.facts["reason"] == "no-memory"
    store.close()


def test_weights_are_published_and_read_though_there_is_no_memory_for_them(folder):
    store = SqlStore(f"sqlite:///{folder / 'full.db'}")
    budget = Budget(BASE_BYTES + ADAPTER_BYTES)
    held = Registry(100, budget, store)
    held.add(model("mdl_0"))
    held.add(model("mdl_1"))
    held.remove("mdl_1")
    budget.take(BASE_BYTES + ADAPTER_BYTES)
    held.publish("mdl_0", filled(7), trained)
    there = held.read("mdl_0")
    assert (there.version, float(there.adapter["A"].max())) == (1, 7)
    assert held.at_hand("mdl_0") is None
    budget.give(BASE_BYTES + ADAPTER_BYTES)
    assert float(held.loaded("mdl_0").adapter["A"].max()) == 7
    assert held.at_hand("mdl_0") is not None
    store.close()


class Refusing(MemoryOnly):
    """A store that takes nothing."""

    def write(self, *changes):
        raise StorageUnavailable("the disk is gone")


def test_what_could_not_be_stored_has_not_happened():
    held = Registry(100, Budget(2**30))
    (kept,) = held.add(model("mdl_0"))
    used, held._store = held.budget.used, Refusing()
    for change in (
        lambda: held.add(model("mdl_1", base(fill=2.0))),
        lambda: held.swap("mdl_0", lambda of: of.noted(NOW, name="new")),
        lambda: held.publish("mdl_0", {}, trained),
        lambda: held.remove("mdl_0"),
    ):
        with pytest.raises(StorageUnavailable):
            change()
        assert held.all() == [kept]
        assert (held.budget.used, held.base_count) == (used, 1)
