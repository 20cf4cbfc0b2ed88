"""The registry holds models and the bases they share, counts their bytes, and swaps one snapshot for the next."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BaseNotFound, CapacityExhausted, ModelNotFound
from service.models.budget import Budget
from service.models.registry import Registry
from tests.models.layers import NOW, base, model, trained

BASE_BYTES = base().nbytes
ADAPTER_BYTES = model().nbytes


def registry(max_models: int = 100, max_bytes: int = 2**30) -> Registry:
    return Registry(max_models, Budget(max_bytes))


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "swap"]), st.integers(0, 3)), max_size=30))
def test_models_are_kept_in_order_and_what_they_take_is_counted(operations):
    held = registry()
    kept = {}
    bases = [base(fill=float(n)) for n in range(4)]
    for number, (what, which) in enumerate(operations):
        if what == "add":
            (kept[f"mdl_{number}"],) = held.add(model(f"mdl_{number}", bases[which]))
        elif kept:
            model_id = list(kept)[which % len(kept)]
            if what == "remove":
                held.remove(model_id)
                del kept[model_id]
            else:
                kept[model_id] = held.swap(model_id, lambda of: of.noted(NOW + timedelta(days=1), name="new"))
        used = {of.base.id for of in kept.values()}
        assert held.all() == list(kept.values())
        assert [held.get(model_id) for model_id in kept] == list(kept.values())
        assert (len(held), held.base_count) == (len(kept), len(used))
        assert held.budget.used == ADAPTER_BYTES * len(kept) + BASE_BYTES * len(used)
        assert all((b.id in used) == knows(held, b.id) for b in bases)


def knows(held: Registry, base_id: str) -> bool:
    try:
        return held.base(base_id).id == base_id
    except BaseNotFound:
        return False


def test_equal_bases_are_kept_once():
    held = registry()
    one, two = held.add(model("mdl_1", base()), model("mdl_2", base()))
    assert one.base is two.base is held.base(one.base.id)
    assert held.base_count == 1


def test_what_is_not_there_is_not_found():
    held = registry()
    held.add(model("mdl_1"))
    assert "mdl_1" in held
    held.remove("mdl_1")
    assert "mdl_1" not in held
    for ask in (held.get, held.remove, lambda model_id: held.swap(model_id, lambda of: of)):
        with pytest.raises(ModelNotFound, match="there is no model mdl_1; GET /models lists"):
            ask("mdl_1")
    with pytest.raises(BaseNotFound, match="there is no base base_0"):
        held.base("base_0")
    assert held.budget.used == 0


def test_no_more_models_than_may_be():
    held = registry(max_models=2)
    held.add(model("mdl_1"))
    held.must_have_room()
    held.add(model("mdl_2"))
    before = held.budget.used
    for ask in (held.must_have_room, lambda: held.add(model("mdl_3"))):
        with pytest.raises(CapacityExhausted, match=r"there are 2 models, .* LORA_MAX_MODELS") as full:
            ask()
        assert full.value.facts == {"in_use": 2, "limit": 2}
    assert ([of.id for of in held.all()], held.budget.used) == (["mdl_1", "mdl_2"], before)
    held.max_models = 1  # as after a restart with a lower limit
    assert held.add() == []
    held.max_models = 2
    held.remove("mdl_1")
    held.add(model("mdl_3"))


def test_a_model_without_room_leaves_nothing_behind():
    held = registry(max_bytes=BASE_BYTES + ADAPTER_BYTES)
    held.add(model("mdl_1"))
    with pytest.raises(CapacityExhausted):
        held.add(model("mdl_2"))
    with pytest.raises(CapacityExhausted):
        held.add(model("mdl_3", base(fill=2.0)))
    assert ([of.id for of in held.all()], held.base_count) == (["mdl_1"], 1)
    assert held.budget.used == held.budget.max_bytes
    held.remove("mdl_1")
    assert (held.budget.used, held.base_count) == (0, 0)


def test_a_change_that_fails_changes_nothing():
    held = registry()
    (old,) = held.add(model("mdl_1"))
    with pytest.raises(ZeroDivisionError):
        held.swap("mdl_1", lambda of: 1 / 0)
    assert held.get("mdl_1") is old


def test_changes_by_many_threads_all_count():
    held, start = registry(), threading.Barrier(4)
    held.add(model("mdl_1"))

    def work(_):
        start.wait()
        for _ in range(100):
            held.publish("mdl_1", model().adapter, trained)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert held.get("mdl_1").version == 400


def test_threads_that_add_and_remove_leave_nothing_behind():
    held, start = registry(), threading.Barrier(6)

    def work(worker):
        start.wait()
        for number in range(60):
            (of,) = held.add(model(f"mdl_{worker}_{number}", base(fill=float(number % 2))))
            assert held.get(of.id) is of
            assert held.base(of.base.id) is of.base
            held.remove(of.id)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert (len(held), held.base_count, held.budget.used) == (0, 0, 0)
