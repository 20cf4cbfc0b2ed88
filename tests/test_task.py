"""A task is trained as it says, and all that becomes of it is told."""

import logging
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from service.task import follow, out_of_memory, perform, prepare
from service.training.arrays import backend_of
from service.training.datasets import split_of
from service.training.fit import Diverged, Ended, Epochs, Steps
from service.training.moments import as_arrays, gather
from service.training.plan import Plan, as_dict
from service.training.sources import Inline, Random
from service.training.state import as_parts, continued
from tests.engine.engines import driven
from tests.training.test_moments import taken

PLAN = Plan(epochs=4, seed=3, data=Random(n_samples=20, seed=3))
WEIGHTS = {
    "layer.weight": np.ones((3, 4), np.float32),
    "layer.bias": np.zeros(3, np.float32),
    "layer.A": np.ones((2, 4), np.float32),
    "layer.B": np.zeros((3, 2), np.float32),
}
LAYERS = {"layers": [{"scaling": 1.0, "frozen_rank": 0}], "activations": []}


def header(plan: Plan = PLAN, job: str = "job_1", names: Iterable[str] = WEIGHTS, **facts: Any) -> dict[str, Any]:
    """A task of one job, whose tensors travel under their own names."""
    told = {"job": job, "plan": as_dict(plan), **LAYERS, "dropout": 0.0, **facts}
    return {"do": "train", "jobs": [{**told, "tensors": {name: name for name in names}}]}


class Heard:
    """What is said, kept in order."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.epochs: list[dict[str, np.ndarray]] = []

    def __call__(self, value: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        self.lines.append(value)
        if value["say"] == "epochs":
            self.epochs.append(arrays or {})
        else:
            self.arrays |= arrays or {}

    @property
    def losses(self) -> list[float]:
        return [loss for epochs in self.epochs for loss in epochs["losses"][:, 0].tolist()]


def performed(head: dict[str, Any], weights: dict[str, np.ndarray] = WEIGHTS, cancelled=lambda: ()) -> Heard:
    """What is said while a task is performed in this process."""
    heard = Heard()
    perform((head, {name: array.copy() for name, array in weights.items()}), "cpu", cancelled, heard)
    return heard


def test_a_task_is_performed_as_fit_does_it():
    heard = performed(header())
    tensors = {name: torch.from_numpy(array) for name, array in WEIGHTS.items()}
    (lesson,) = prepare(header()["jobs"], tensors, "cpu")
    losses, fitted = driven(lesson)
    start = continued(fitted.state, fitted.state.path)
    assert heard.losses == losses
    assert heard.lines[-2:] == [
        {"say": "succeeded", "job": "job_1", "metrics": dict(fitted.metrics), "state": as_parts(start)[0]},
        {"say": "done"},
    ]
    assert heard.arrays.keys() == {"A", "B", *(f"state.{name}" for name in start.arrays)}
    assert all(np.array_equal(heard.arrays[name], fitted.layer.adapter()[name].numpy()) for name in "AB")


def test_a_bias_of_its_own_is_trained_and_sent_back():
    heard = performed(
        header(names=[*WEIGHTS, "layer.own_bias"]), {**WEIGHTS, "layer.own_bias": np.zeros(3, np.float32)}
    )
    assert {name for name in heard.arrays if "." not in name} == {"A", "B", "own_bias"}
    assert heard.arrays["own_bias"].any()


def test_rows_of_the_task_are_trained_on():
    plan = Plan(epochs=2, seed=0, data=Inline(n_samples=5, targets="numbers"))
    x, y = np.ones((5, 4), np.float32), np.full((5, 3), 6, np.float32)
    heard = performed(header(plan, names=[*WEIGHTS, "data.x", "data.y"]), {**WEIGHTS, "data.x": x, "data.y": y})
    assert heard.losses[0] == 4  # (4 - 6)²
    assert heard.lines[-2]["say"] == "succeeded"


def test_of_a_task_that_is_not_wanted_any_more_nothing_is_told_but_its_end():
    assert performed(header(), cancelled=lambda: ["job_1"]).lines == [{"say": "done"}]


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_a_cancel_stops_at_the_next_step(steps):
    asked = iter(range(steps))
    not_wanted = ["job_1"]
    plan = Plan(epochs=100, seed=0, data=Random(n_samples=20, seed=0), batch_size=10)  # three yields for each epoch
    heard = performed(header(plan), cancelled=lambda: not_wanted if next(asked, None) is None else ())
    assert len(heard.losses) == (steps + 1) // 3
    assert heard.lines[-1] == {"say": "done"}
    assert heard.arrays == {}


def together(*tasks: dict[str, Any]) -> dict[str, Any]:
    """One task of the jobs of several."""
    return {"do": "train", "jobs": [job for task in tasks for job in task["jobs"]]}


def ends(heard: Heard) -> dict[str, str]:
    """How each job ended, for those of which it was said."""
    return {
        job: line.get("reason", line["say"])
        for line in heard.lines
        if line["say"] in ("succeeded", "failed")
        for job in line.get("jobs", [line.get("job")])
    }


@pytest.mark.parametrize("path", ["moments", "batch"])
def test_jobs_of_one_task_have_each_the_numbers_that_it_has_alone(path):
    plans = [Plan(epochs=4, seed=n, lr=0.01 * n, data=Random(n_samples=20, seed=n), path=path) for n in (1, 2, 3)]
    tasks = [header(plan, job=f"job_{n}") for n, plan in enumerate(plans)]
    heard, apart = performed(together(*tasks)), [performed(task) for task in tasks]
    told = np.concatenate([epochs["losses"] for epochs in heard.epochs])
    assert told.T.tolist() == [alone.losses for alone in apart]
    metrics = {line["job"]: line["metrics"] for line in heard.lines if line["say"] == "succeeded"}
    assert metrics == {line["job"]: line["metrics"] for alone in apart for line in alone.lines if "metrics" in line}
    assert heard.lines[-1] == {"say": "done"}


def test_rows_to_validate_on_come_with_the_task_or_are_held_out():
    x, y = np.ones((5, 4), np.float32), np.full((5, 3), 6, np.float32)
    inline = Inline(n_samples=5, targets="numbers")
    sent = {"data.x": x, "data.y": y, "validation.x": 2 * x, "validation.y": y}
    plan = Plan(epochs=2, seed=0, data=inline, validation=inline)
    heard = performed(header(plan, names=[*WEIGHTS, *sent]), {**WEIGHTS, **sent})
    (epochs,) = heard.epochs
    assert epochs.keys() == {"losses", "validation_losses"}
    assert epochs["losses"][0, 0] == 4  # (4 - 6)²
    assert heard.lines[-2]["metrics"]["validation_loss"] == epochs["validation_losses"][-1, 0]


@pytest.mark.parametrize("gathered", [False, True])
def test_a_share_is_held_out_of_what_is_trained_on(gathered):
    x, y = np.arange(20, dtype=np.float32).reshape(5, 4), np.arange(15, dtype=np.float32).reshape(5, 3)
    sent = {"data.x": x, "data.y": y}
    if gathered:  # those of all rows, which are of no use then
        moments = taken(gather(backend_of(torch.from_numpy(x)), torch.from_numpy(x), torch.from_numpy(y)))
        sent |= {f"data.moments.{name}": array for name, array in as_arrays(moments).items()}
    plan = Plan(epochs=2, seed=7, data=Inline(n_samples=5, targets="numbers"), validation=0.4)
    task = header(plan, names=[*WEIGHTS, *sent])
    tensors = {name: torch.from_numpy(array) for name, array in {**WEIGHTS, **sent}.items()}
    (lesson,) = prepare(task["jobs"], tensors, "cpu")
    held_out, kept = split_of(5, 2, 7)
    assert lesson.moments is None
    for rows, which in ((lesson.rows, kept), (lesson.validation, held_out)):
        assert torch.equal(rows.x, torch.from_numpy(x)[which])
        assert torch.equal(rows.y, torch.from_numpy(y)[which])
    (epochs,) = performed(task, {**WEIGHTS, **sent}).epochs
    assert epochs.keys() == {"losses", "validation_losses"}


@pytest.mark.parametrize("path", ["moments", "batch"])
@pytest.mark.parametrize("end", ["succeeded", "diverged"])
def test_a_job_that_is_cancelled_while_the_end_of_another_is_told_does_no_harm_to_the_rest(path, end):
    lr = 0.01 if end == "succeeded" else 1e6
    plan = Plan(epochs=60, lr=lr, optimizer="sgd", seed=0, data=Random(n_samples=20, seed=0), path=path)
    heard = Heard()

    def cancelled() -> list[str]:
        return ["job_2"] if ends(heard).keys() == {"job_1"} else []

    task = together(*(header(plan, job=f"job_{n}") for n in (1, 2, 3)))
    perform((task, {name: array.copy() for name, array in WEIGHTS.items()}), "cpu", cancelled, heard)
    assert ends(heard) == {"job_1": end, "job_3": end}
    assert heard.lines[-1] == {"say": "done"}


@pytest.mark.parametrize("path", ["moments", "batch"])
def test_a_job_that_is_cancelled_once_another_has_diverged_is_left_and_the_rest_go_on(path):
    plans = [
        Plan(epochs=60, lr=lr, optimizer="sgd", seed=0, data=Random(n_samples=20, seed=0), path=path)
        for lr in (1e6, 0.01, 0.01)
    ]
    asked = iter([["job_2"]])
    heard = Heard()

    def cancelled() -> list[str]:  # asked for once, right after the first end
        return next(asked, []) if ends(heard) else []

    task = together(*(header(plan, job=f"job_{n}") for n, plan in enumerate(plans, start=1)))
    perform((task, {name: array.copy() for name, array in WEIGHTS.items()}), "cpu", cancelled, heard)
    assert ends(heard) == {"job_1": "diverged", "job_3": "succeeded"}
    told = zip([line for line in heard.lines if line["say"] == "epochs"], heard.epochs, strict=True)
    epochs = dict.fromkeys(("job_1", "job_2", "job_3"), 0)
    for line, curves in told:
        for job in line["jobs"]:
            epochs[job] += len(curves["losses"])
    assert epochs["job_3"] == 60
    assert epochs["job_2"] <= epochs["job_1"] + 1 < 60


def test_a_run_that_diverges_tells_the_losses_it_had():
    plan = Plan(epochs=100, lr=1e6, optimizer="sgd", seed=0, data=Random(n_samples=20, seed=0))
    heard = performed(header(plan))
    assert 1 <= len(heard.losses) < 100
    assert np.isfinite(heard.losses).all()
    assert (heard.lines[-2]["say"], heard.lines[-2]["reason"]) == ("failed", "diverged")


def test_a_task_that_breaks_is_a_failure_and_in_the_log(caplog):
    with caplog.at_level(logging.ERROR):
        heard = performed(header(plan=PLAN, layers=[{"scaling": "broken", "frozen_rank": 0}]))
    assert [(line["say"], line.get("reason")) for line in heard.lines] == [("failed", "internal-error"), ("done", None)]
    assert "broken" not in heard.lines[0]["detail"]
    assert "Traceback" in caplog.text


def test_a_task_that_does_not_fit_in_memory_says_so(caplog):
    plan = Plan(epochs=1, seed=0, data=Inline(n_samples=5, targets="numbers"), path="batch")
    # One row that claims to be a thousand million million: its outputs do not fit anywhere.
    x = np.lib.stride_tricks.as_strided(np.ones((1, 4), np.float32), (2**50, 4), (0, 4), writeable=True)
    heard = Heard()
    task = header(plan, names=[*WEIGHTS, "data.x", "data.y"])
    perform((task, {**WEIGHTS, "data.x": x, "data.y": np.ones((5, 3), np.float32)}), "cpu", lambda: (), heard)
    assert [(line["say"], line.get("reason")) for line in heard.lines] == [("failed", "out-of-memory"), ("done", None)]
    assert caplog.text == ""


def test_an_allocation_that_failed_is_told_from_other_errors():
    for allocate in (lambda: torch.empty(2**59), lambda: np.empty(2**59), lambda: bytearray(2**60)):
        with pytest.raises((MemoryError, RuntimeError)) as failed:
            allocate()
        assert out_of_memory(failed.value)
    with pytest.raises(RuntimeError) as other:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not out_of_memory(other.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


def test_losses_that_come_fast_are_told_together_and_all_of_them():
    def steps() -> Steps:
        for number in range(1_000):
            yield None
            yield epoch(number)
        yield Ended(0, Diverged())

    heard = Heard()
    going = {"job_1": None}
    follow(steps(), going, lambda: (), heard)
    assert going == {}
    assert heard.losses == [float(number) for number in range(1_000)]
    assert len(heard.lines) < 500


def test_losses_that_come_slowly_are_told_as_they_come():
    heard, told = Heard(), []

    def steps() -> Steps:
        for number in range(3):
            threading.Event().wait(0.03)
            yield epoch(number)
            told.append(len(heard.losses))

    follow(steps(), {"job_1": None}, lambda: (), heard)
    assert told == [1, 2, 3]


def epoch(number: int) -> Epochs:
    """An epoch of one run whose loss is its number."""
    return Epochs([0], {"losses": np.array([[float(number)]])}, state=None)  # type: ignore[arg-type]
