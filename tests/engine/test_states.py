"""States are kept for the jobs that ended last, within so many bytes."""

import numpy as np
import pytest

from service.engine.states import States
from service.errors import StateGone, Validation
from service.models.store import MemoryOnly
from service.training.plan import Plan
from service.training.sources import Random
from service.training.state import State, as_parts
from tests.engine.engines import running, small, until_ended


def state(numbers: int) -> State:
    return State(path="moments", epoch=0, steps=1, arrays={"parameters": np.zeros(numbers)}, watched={})


def test_the_oldest_states_go_first():
    states = States(100, MemoryOnly())
    kept = [state(5) for _ in range(4)]
    for number, each in enumerate(kept):
        states.keep(f"job_{number}", each)
    assert states.used == 80
    assert [states.get("job_2"), states.get("job_3")] == kept[2:]
    for gone in ("job_0", "job_1", "job_9"):
        with pytest.raises(StateGone, match="LORA_STATES_MIB"):
            states.get(gone)
    assert states.keep("large", state(50)) == ["large"]
    assert states.used == 80


def test_a_job_whose_start_was_dropped_while_it_waited_fails_and_says_so():
    with running(workers=1) as engine:
        model = small(engine)
        plan = Plan(epochs=2, seed=1, data=Random(n_samples=20, seed=1))
        first = until_ended(engine, engine.train(model.id, plan))
        engine.workers.stop()
        waiting = engine.train(model.id, Plan(**{**vars(plan), "continue_from": first.id, "path": None}))
        engine.states.keep("other", state(engine.states.max_bytes // 8))
        (run,) = engine.queue.take(0)
        assert run.begin(1) is None
        failed = engine.ledger.get(waiting.id)
        assert (failed.state, failed.reason) == ("failed", "state-gone")


def test_only_a_job_that_succeeded_leaves_a_state_and_it_goes_with_its_model():
    with running(workers=1) as engine:
        model = small(engine)
        job = until_ended(engine, engine.train(model.id, Plan(epochs=2, seed=1, data=Random(n_samples=20))))
        engine.workers.stop()
        late = engine.train(model.id, Plan(epochs=2, seed=1, data=Random(n_samples=20)))
        (run,) = engine.queue.take(0)
        run.begin(1)
        engine.cancel(late.id)
        facts, arrays = as_parts(engine.states.get(job.id))
        adapter = {name: model.adapter[name].numpy() for name in "AB"}
        run.succeeded({"final_loss": 1.0}, facts, {**adapter, **{f"state.{name}": a for name, a in arrays.items()}})
        with pytest.raises(StateGone):
            engine.states.get(late.id)
        assert engine.registry.get(model.id).version == 1
        engine.queue.done([run])
        engine.delete(model.id)
        assert engine.states.used == 0


def test_another_optimizer_does_not_go_on_from_a_state():
    with running(workers=1) as engine:
        model = small(engine)
        job = until_ended(engine, engine.train(model.id, Plan(epochs=2, seed=1, data=Random(n_samples=20))))
        with pytest.raises(Validation, match="has the optimizer adam, not sgd"):
            engine.train(model.id, Plan(epochs=2, optimizer="sgd", continue_from=job.id, data=Random(n_samples=20)))
