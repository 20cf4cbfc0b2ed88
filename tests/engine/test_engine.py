"""What can be asked of the engine without any worker: models, forwards, the queue, and what may be held."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.codecs.raw import RAW
from service.engine import Capacity, Engine
from service.errors import (
    BaseNotFound,
    CapacityExhausted,
    Draining,
    JobActive,
    JobNotFound,
    LimitExceeded,
    ModelBusy,
    ModelNotFound,
    ShapeMismatch,
    TemporaryReducedCapacity,
    Validation,
)
from service.ids import MODEL_ID, matches
from service.jobs import events
from service.jobs.state import State
from service.training.plan import Plan
from service.training.sources import Digits, Random
from tests.engine.engines import ENDLESS, SHORT, inline, small
from tests.memory import peak_growth

NO_MODEL = "mdl_01M85RD3BCCMDPHHSCEG79B55H"
NO_JOB = "job_01M85RD3BCCMDPHHSCEG79B55H"


def test_a_new_model_computes_what_its_base_does():
    engine = Engine()
    model = engine.create(in_features=6, out_features=3, rank=2, name="mine", metadata={"a": "b"})
    assert matches(MODEL_ID, model.id)
    assert (model.version, model.last_loss, model.name, model.metadata) == (0, None, "mine", {"a": "b"})
    assert model.created_at == model.updated_at
    assert engine.registry.get(model.id) is model
    x = torch.randn(4, 6)
    answer = engine.forward(model.id, x.numpy())
    expected = torch.nn.functional.linear(x, model.base.weight, model.base.bias)
    np.testing.assert_allclose(answer.outputs, expected.numpy(), atol=1e-6)
    assert (answer.model_id, answer.model_version) == (model.id, 0)


def test_a_seed_decides_everything_and_one_is_drawn_when_none_is_given():
    engine = Engine()
    one, two, other = (small(engine, seed=seed, init="normal") for seed in (1, 1, 2))
    assert all(torch.equal(one.adapter[name], two.adapter[name]) for name in "AB")
    assert not torch.equal(one.adapter["A"], other.adapter["A"])
    drawn = {small(engine, seed=None).seed for _ in range(5)}
    assert len(drawn) == 5
    assert all(0 <= seed < 2**32 for seed in drawn)


def test_models_of_one_seed_and_size_share_a_base_that_goes_with_the_last_of_them():
    engine = Engine()
    one, two = small(engine), small(engine, rank=8, alpha=1.0)
    other = small(engine, seed=8)
    assert one.base is two.base
    assert engine.registry.base_count == 2
    assert engine.budget.used == one.nbytes + two.nbytes + other.nbytes + one.base.nbytes + other.base.nbytes
    engine.delete(one.id)
    assert engine.registry.base(two.base.id) is two.base
    engine.delete(two.id)
    with pytest.raises(BaseNotFound):
        engine.registry.base(two.base.id)
    engine.delete(other.id)
    assert (engine.registry.base_count, engine.budget.used) == (0, 0)


def test_an_adapter_may_stand_on_a_base_that_is_there():
    engine = Engine()
    first = engine.create(in_features=6, out_features=3, rank=2)
    on_it = engine.create(base_id=first.base.id, rank=3, seed=5)
    assert on_it.base is first.base
    assert (on_it.spec.in_features, on_it.spec.out_features, on_it.spec.rank, on_it.spec.bias) == (6, 3, 3, True)
    engine.delete(first.id)
    assert engine.forward(on_it.id, np.zeros((1, 6), np.float32)).outputs.shape == (1, 3)
    for field, value in [("in_features", 5), ("out_features", 6), ("bias", False)]:
        with pytest.raises(ShapeMismatch, match=f"{field} is .*; the base has"):
            engine.create(base_id=first.base.id, rank=2, **{field: value})
    with pytest.raises(Validation, match="rank is 4"):
        engine.create(base_id=first.base.id, rank=4)
    engine.delete(on_it.id)
    with pytest.raises(BaseNotFound):
        engine.create(base_id=first.base.id, rank=2)
    assert engine.budget.used == 0


def test_a_trained_bias_is_a_copy_of_the_bases():
    engine = Engine()
    model = small(engine, train_bias=True)
    assert torch.equal(model.adapter["own_bias"], model.base.bias)
    assert model.adapter["own_bias"].data_ptr() != model.base.bias.data_ptr()
    assert model.nbytes == model.spec.adapter_bytes


def test_weights_have_the_names_of_peft():
    engine = Engine()
    model, weights = engine.adapters.weights(small(engine).id)
    assert {name: array.shape for name, array in weights.items()} == {
        "base.weight": (64, 64),
        "base.bias": (64,),
        "lora_A.weight": (4, 64),
        "lora_B.weight": (64, 4),
    }
    assert "bias" in engine.adapters.weights(small(engine, train_bias=True).id)[1]
    assert "base.bias" not in engine.adapters.weights(small(engine, bias=False).id)[1]
    assert np.array_equal(weights["lora_A.weight"], model.adapter["A"].numpy())


def test_notes_can_be_changed_and_nothing_else_changes():
    engine = Engine()
    model = small(engine, name="old")
    changed = engine.update(model.id, name="new", metadata={"k": "v"})
    assert (changed.name, changed.metadata, changed.version) == ("new", {"k": "v"}, 0)
    assert changed.updated_at >= model.updated_at
    assert changed.adapter is model.adapter
    assert engine.registry.get(model.id) is changed


@settings(max_examples=60)
@given(array_shapes(min_dims=1, max_dims=7, min_side=0, max_side=3), st.integers(1, 4))
def test_inputs_of_any_leading_shape_are_mapped_row_by_row(leading, in_features):
    engine = Engine()
    model = engine.create(in_features=in_features, out_features=5, rank=1, init="normal", seed=0)
    for shape in ((in_features,), (*leading, in_features)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        outputs = engine.forward(model.id, x).outputs
        assert outputs.shape == (*shape[:-1], 5)
        assert outputs.dtype == np.float32
        rows = [engine.forward(model.id, row).outputs for row in x.reshape(-1, in_features)[:3]]
        assert all(np.allclose(row, y, atol=1e-5) for row, y in zip(rows, outputs.reshape(-1, 5), strict=False))


@settings(max_examples=25)
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=4).map(lambda s: (s[0], 3)),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_a_forward_changes_neither_its_inputs_nor_the_model(x):
    engine = Engine()
    model = engine.create(in_features=3, out_features=2, rank=1, seed=0)
    before, weights = x.copy(), {name: tensor.copy() for name, tensor in engine.adapters.weights(model.id)[1].items()}
    first, *others = [engine.forward(model.id, x).outputs for _ in range(3)]
    assert np.array_equal(x, before)
    for other in others:  # by merged weights, maybe
        np.testing.assert_allclose(other, first, rtol=0, atol=1e-6 * max(1, np.abs(first).max(initial=0)))
    assert all(np.array_equal(now, weights[name]) for name, now in engine.adapters.weights(model.id)[1].items())


def test_inputs_decoded_from_bytes_are_run_without_complaint():
    engine = Engine()
    model = engine.create(in_features=3, out_features=2, rank=1, seed=0)
    torch.set_warn_always(True)
    try:
        engine.forward(model.id, RAW.decode(bytes(24), 3))
    finally:
        torch.set_warn_always(False)


def test_outputs_beyond_the_limit_are_refused_before_they_are_made():
    engine = Engine(Capacity(forward_bytes=4 * 65_536 * 10))
    model = engine.create(in_features=1, out_features=65_536, rank=1)
    assert engine.forward(model.id, np.zeros((10, 1), np.float32)).outputs.shape == (10, 65_536)
    with pytest.raises(LimitExceeded, match="the outputs of 11 rows take") as refused:
        engine.forward(model.id, np.zeros((11, 1), np.float32))
    assert refused.value.facts == {"bytes_needed": 4 * 65_536 * 11, "bytes_allowed": 4 * 65_536 * 10}
    # Rows without number cost nothing to send.
    with pytest.raises(LimitExceeded):
        engine.forward(model.id, np.zeros((2**24, 1), np.float32))
    assert (engine.forwards.count, engine.forwards.rows) == (1, 10)


def test_what_is_not_there_is_not_found():
    engine = Engine()
    plan, rows = inline()
    for ask in (
        lambda: engine.forward(NO_MODEL, np.zeros(3, np.float32)),
        lambda: engine.adapters.weights(NO_MODEL),
        lambda: engine.update(NO_MODEL, name="x"),
        lambda: engine.delete(NO_MODEL),
        lambda: engine.delete(NO_MODEL, force=True),
        lambda: engine.train(NO_MODEL, plan, rows),
    ):
        with pytest.raises(ModelNotFound):
            ask()
    for ask in (engine.cancel, engine.ledger.remove):
        with pytest.raises(JobNotFound):
            ask(NO_JOB)
    assert engine.budget.used == 0


@pytest.mark.parametrize(
    ("capacity", "kind"),
    [
        (Capacity(), LimitExceeded),
        (Capacity(layer_bytes=2**40), CapacityExhausted),
        (Capacity(layer_bytes=2**40, memory_bytes=2**34), CapacityExhausted),
    ],
)
def test_a_layer_that_is_too_large_is_refused_before_any_memory_is_taken(capacity, kind):
    engine = Engine(capacity)
    grown = peak_growth()
    for _ in range(10):
        with pytest.raises(kind) as refused:
            engine.create(in_features=65_536, out_features=65_536, rank=1)
        assert refused.value.facts["bytes_needed"] >= 4 * 65_536**2
    assert grown() < 2**24
    assert (engine.budget.used, len(engine.registry)) == (0, 0)


def test_a_layer_fits_to_the_byte():
    spec = small(Engine()).spec
    needed = spec.base_bytes + spec.adapter_bytes
    assert small(Engine(Capacity(layer_bytes=needed, memory_bytes=needed)))
    with pytest.raises(LimitExceeded) as refused:
        small(Engine(Capacity(layer_bytes=needed - 1)))
    assert refused.value.facts == {"bytes_needed": needed, "bytes_allowed": needed - 1}
    with pytest.raises(CapacityExhausted) as full:
        small(Engine(Capacity(memory_bytes=needed - 1)))
    assert full.value.facts == {"bytes_needed": needed, "in_use": 0, "limit": needed - 1}


def test_when_memory_is_full_a_model_must_go_before_another_comes():
    spec = small(Engine()).spec
    engine = Engine(Capacity(memory_bytes=spec.base_bytes + 2 * spec.adapter_bytes + 100))
    model = small(engine)
    with pytest.raises(CapacityExhausted):
        small(engine, seed=8)
    with pytest.raises(CapacityExhausted):
        engine.create(base_id=model.base.id, rank=9)
    engine.create(base_id=model.base.id, rank=4)  # the base is there already
    assert len(engine.registry) == 2
    for kept in engine.registry.all():
        engine.delete(kept.id)
    assert engine.budget.used == 0
    small(engine, seed=8)


def test_there_are_no_more_models_than_may_be():
    engine = Engine(Capacity(max_models=2))
    models = [small(engine), small(engine)]
    used = engine.budget.used
    with pytest.raises(CapacityExhausted, match="LORA_MAX_MODELS"):
        small(engine)
    assert engine.budget.used == used
    engine.delete(models[0].id)
    small(engine)


def test_a_model_too_many_costs_nothing():
    engine = Engine(Capacity(max_models=1))
    small(engine)
    grown = peak_growth()
    for _ in range(3):
        with pytest.raises(CapacityExhausted):
            engine.create(in_features=8_192, out_features=8_192, rank=1)
    assert grown() < 2**24


def test_threads_that_create_run_train_and_delete_leave_nothing_behind():
    engine, start = Engine(Capacity(queue_max=10_000)), threading.Barrier(8)
    plan, rows = inline()

    def work(worker):
        start.wait()
        for number in range(25):
            model = small(engine, seed=number % 3, rank=1 + worker % 3)
            engine.forward(model.id, rows["data.x"])
            job = engine.train(model.id, plan, rows)
            if number % 2:
                engine.cancel(job.id)
            engine.delete(model.id, force=True)
            assert engine.ledger.get(job.id).state is State.CANCELLED

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert (len(engine.registry), engine.registry.base_count, len(engine.queue), engine.budget.used) == (0, 0, 0, 0)


def test_threads_that_fill_the_memory_never_take_more_than_there_is():
    spec = small(Engine()).spec
    most = 5
    engine = Engine(Capacity(memory_bytes=most * (spec.base_bytes + spec.adapter_bytes)))

    def work(worker):
        for number in range(40):
            try:
                model = small(engine, seed=1_000 * worker + number)
            except CapacityExhausted:
                continue
            assert len(engine.registry) <= most
            assert engine.budget.used <= engine.budget.max_bytes
            engine.delete(model.id)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert engine.budget.used == 0


def test_a_job_is_accepted_with_every_setting_in_force():
    engine = Engine()
    model = small(engine)
    job = engine.train(model.id, Plan())
    assert (job.state, job.model_id, job.epochs, job.epoch, list(job.losses)) == (State.QUEUED, model.id, 10, 0, [])
    assert 0 <= job.plan.seed < 2**32
    assert job.plan.data.seed == job.plan.seed
    assert (job.plan.betas, job.plan.eps, job.plan.weight_decay) == ((0.9, 0.999), 1e-8, 0.0)
    assert engine.ledger.all() == [job]
    assert len(engine.queue) == 1


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        (Plan(loss="cross_entropy"), Validation),
        (Plan(data=Digits(), loss="cross_entropy"), ShapeMismatch),
        (Plan(data=Random(n_samples=100_000)), LimitExceeded),
    ],
)
def test_what_cannot_be_trained_is_refused_before_there_is_a_job(plan, kind):
    engine = Engine(Capacity(train_bytes=2**20))
    model = engine.create(in_features=4, out_features=3, rank=1)
    used = engine.budget.used
    with pytest.raises(kind):
        engine.train(model.id, plan)
    assert (engine.ledger.all(), len(engine.queue), engine.budget.used) == ([], 0, used)


def test_rows_that_do_not_fit_the_model_or_the_memory_are_refused_before_there_is_a_job():
    plan, rows = inline()
    engine = Engine(Capacity(memory_bytes=40_000))
    model = small(engine)
    used = engine.budget.used
    x, y = rows["data.x"], rows["data.y"]
    for wrong in ({"data.x": x[:, :3]}, {"data.y": y[:-1]}, {"data.y": y.reshape(-1)}):
        with pytest.raises(ShapeMismatch):
            engine.train(model.id, plan, {**rows, **wrong})
    with pytest.raises(CapacityExhausted):
        engine.train(model.id, plan, rows)
    assert (engine.ledger.all(), len(engine.queue), engine.budget.used) == ([], 0, used)


def test_a_full_queue_takes_no_job_and_leaves_none_behind():
    engine = Engine(Capacity(queue_max=2))
    model = small(engine)
    plan, rows = inline()
    jobs = [engine.train(model.id, plan, rows) for _ in range(2)]
    used = engine.budget.used
    with pytest.raises(TemporaryReducedCapacity, match="2 jobs are waiting"):
        engine.train(model.id, plan, rows)
    assert (engine.ledger.all(), len(engine.queue), engine.budget.used) == (jobs, 2, used)
    engine.cancel(jobs[0].id)
    assert engine.train(model.id, plan, rows).state is State.QUEUED


def test_rows_are_counted_for_as_long_as_the_job_waits():
    engine = Engine()
    model = small(engine)
    plan, rows = inline()
    before = engine.budget.used
    jobs = [engine.train(model.id, plan, rows) for _ in range(3)]
    assert engine.budget.used == before + 3 * sum(array.nbytes for array in rows.values())
    for job in jobs:
        engine.cancel(job.id)
        engine.cancel(job.id)
    assert (engine.budget.used, len(engine.queue)) == (before, 0)


def test_a_waiting_job_that_is_cancelled_has_ended_once():
    engine = Engine()
    job = engine.train(small(engine).id, SHORT)
    first, second = engine.cancel(job.id), engine.cancel(job.id)
    assert first is second is engine.ledger.get(job.id)
    assert (first.state, first.started_at, first.duration_seconds) == (State.CANCELLED, None, None)
    assert [(event.kind, event.data.get("state")) for event in events.since(first)] == [
        ("state", "queued"),
        ("state", "cancelled"),
        ("done", "cancelled"),
    ]


def test_a_job_is_forgotten_only_after_its_end():
    engine = Engine()
    job = engine.train(small(engine).id, SHORT)
    with pytest.raises(JobActive, match="is queued; cancel it first"):
        engine.ledger.remove(job.id)
    engine.cancel(job.id)
    engine.ledger.remove(job.id)
    with pytest.raises(JobNotFound):
        engine.ledger.remove(job.id)
    assert engine.ledger.all() == []


def test_a_model_with_a_job_is_busy_unless_forced():
    engine = Engine()
    model = small(engine)
    plan, rows = inline()
    jobs = [engine.train(model.id, plan, rows) for _ in range(2)]
    with pytest.raises(ModelBusy, match=f"job {jobs[0].id} is queued on model {model.id}"):
        engine.delete(model.id)
    assert engine.registry.get(model.id) is model
    engine.delete(model.id, force=True)
    assert [engine.ledger.get(job.id).state for job in jobs] == [State.CANCELLED] * 2
    assert (len(engine.registry), len(engine.queue), engine.budget.used) == (0, 0, 0)


def test_the_oldest_jobs_that_ended_are_forgotten_first():
    engine = Engine(Capacity(keep_jobs=3))
    model = small(engine)
    waiting = engine.train(model.id, SHORT)
    jobs = [engine.cancel(engine.train(model.id, SHORT).id) for _ in range(5)]
    assert engine.ledger.all() == [waiting, *jobs[2:]]


def test_whoever_drains_takes_no_more_training_but_everything_else():
    engine = Engine()
    model = small(engine)
    rung = []
    engine.ledger.watch(lambda: rung.append(engine.draining))
    engine.drain()
    assert rung == [True]
    with pytest.raises(Draining):
        engine.train(model.id, SHORT)
    assert engine.ledger.all() == []
    engine.forward(model.id, np.zeros((1, 64), np.float32))
    engine.delete(small(engine).id)


def test_closing_ends_what_waits_even_if_nothing_was_started():
    engine = Engine()
    plan, rows = inline()
    job = engine.train(small(engine).id, plan, rows)
    used = engine.budget.used
    engine.close()
    engine.close()
    ended = engine.ledger.get(job.id)
    assert (ended.state, ended.reason) == (State.FAILED, "interrupted")
    assert ended.detail == "the service was shut down before the job had ended"
    assert engine.budget.used == used - sum(array.nbytes for array in rows.values())


def test_closing_copes_with_jobs_that_are_forgotten_meanwhile():
    engine = Engine(Capacity(keep_jobs=1))
    model = small(engine)
    waiting, ended = (engine.train(model.id, ENDLESS) for _ in range(2))
    engine.cancel(ended.id)
    engine.close()
    assert engine.ledger.get(waiting.id).reason == "interrupted"


def test_engines_that_are_let_go_leave_no_thread():
    before = set(threading.enumerate())
    for _ in range(5):
        small(Engine())
    gc.collect()
    assert set(threading.enumerate()) <= before
