"""Runs side by side are the runs alone, bit for bit, whatever becomes of the others."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.training.fit import Diverged, Ended, Epochs, fit
from service.training.lesson import Lesson
from service.training.plan import EarlyStopping
from service.training.rows import Rows
from tests.training.making import SMALL, copies, gentle, layer_of, learn, plan_for, rows_for, stacked, unchanged

PATHS = {
    "moments": {"path": "moments"},
    "rows": {},
    "batches": {"batch_size": 7},
    "classes": {"batch_size": 7, "loss": "cross_entropy"},
}
EVERY_PATH = pytest.mark.parametrize("path", PATHS)
RATES = (0.01, 0.1, 0.003, 0.05)


def lessons_for(path, count=4, n=23, shared=False, **chosen):
    """Runs that differ in their layers, data, seeds and learning rates."""
    chosen = {**PATHS[path], "epochs": 6, **chosen}
    loss = chosen.pop("loss", "mse")
    layers = [gentle(SMALL, 0 if shared else seed) for seed in range(count)]
    rows = [Rows(*rows_for(loss, layer, n, seed)) for seed, layer in enumerate(layers)]
    plans = [plan_for(loss, n, lr=RATES[seed], seed=seed, **chosen) for seed in range(count)]
    if shared:
        layers, rows = [layers[0]] * count, [rows[0]] * count
    return [Lesson(*lesson) for lesson in zip(layers, plans, rows, strict=True)]


def must_be_alone(lessons, losses, outcomes, but=()):
    """Each run has the losses and the end that it has alone."""
    for run, lesson in enumerate(lessons):
        if run in but:
            continue
        alone = learn(lesson)
        assert losses[run] == alone.losses
        if isinstance(alone.outcome, Diverged):
            assert isinstance(outcomes[run], Diverged)
        else:
            assert outcomes[run].metrics == alone.fitted.metrics
            assert unchanged(outcomes[run].layer, copies(alone.fitted.layer))


@EVERY_PATH
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_stacked_runs_equal_runs_alone_bit_for_bit(path, shared, optimizer):
    lessons = lessons_for(path, shared=shared, optimizer=optimizer)
    must_be_alone(lessons, *stacked(lessons))


@EVERY_PATH
def test_validation_dropout_and_early_stopping_are_each_runs_own(path):
    lessons = lessons_for(path, early_stopping=EarlyStopping(patience=1, min_delta=0.002), epochs=20)
    dropout = 0.0 if path == "moments" else 0.3
    loss = lessons[0].plan.loss
    lessons = [
        replace(lesson, validation=Rows(*rows_for(loss, lesson.layer, 9, 100 + run)), dropout=dropout)
        for run, lesson in enumerate(lessons)
    ]
    losses, outcomes = stacked(lessons)
    assert len({len(told) for told in losses.values()}) > 1
    must_be_alone(lessons, losses, outcomes)


@EVERY_PATH
@pytest.mark.parametrize("wild", range(3))
def test_a_run_that_diverges_does_not_disturb_the_others(path, wild):
    lessons = lessons_for(path, optimizer="sgd", epochs=40)
    loud = lessons[wild]
    rows = Rows(loud.rows.x * 1e30, loud.rows.y)
    lessons[wild] = replace(loud, plan=replace(loud.plan, lr=1e6), rows=rows)
    losses, outcomes = stacked(lessons)
    assert [run for run, outcome in outcomes.items() if isinstance(outcome, Diverged)] == [wild]
    must_be_alone(lessons, losses, outcomes)


@EVERY_PATH
@settings(max_examples=3)
@given(patience=st.integers(1, 4), wild=st.integers(0, 8))
def test_runs_that_end_one_after_another_leave_those_that_go_on_as_they_were(path, patience, wild):
    lessons = []
    for seed in range(9):
        stopping = EarlyStopping(patience=patience, min_delta=0.01)
        (lesson,) = lessons_for(path, count=1, epochs=30, early_stopping=stopping)
        plan = replace(lesson.plan, seed=seed, lr=0.4 * 0.7**seed, optimizer="sgd", betas=None, eps=None)
        lessons.append(replace(lesson, layer=gentle(SMALL, seed), plan=plan))
    lessons[wild] = replace(lessons[wild], plan=replace(lessons[wild].plan, lr=1e6))
    losses, outcomes = stacked(lessons)
    assert len({len(told) for told in losses.values()}) > 1
    must_be_alone(lessons, losses, outcomes)


@EVERY_PATH
@pytest.mark.parametrize("leaver", [0, 3])
def test_a_run_that_leaves_ends_nothing_but_itself(path, leaver):
    lessons = lessons_for(path)
    losses, outcomes = stacked(lessons, leave=(leaver, 2))
    assert len(losses[leaver]) == 2
    assert leaver not in outcomes
    must_be_alone(lessons, losses, outcomes, but=[leaver])
    assert losses[leaver] == learn(lessons[leaver]).losses[:2]


@EVERY_PATH
def test_a_run_may_leave_between_any_two_steps(path):
    lessons = lessons_for(path)
    steps, told = fit(lessons), []
    next(steps)
    sent = [1, 2]
    while True:
        try:
            told.append(steps.send(sent))
        except StopIteration:
            break
        sent = None
    assert all(set(one.runs) == {0, 3} for one in told if isinstance(one, Epochs))
    assert {one.run for one in told if isinstance(one, Ended)} == {0, 3}


def test_runs_that_all_leave_are_over():
    steps = fit(lessons_for("rows"))
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(range(4))


@settings(max_examples=15)
@given(st.sampled_from(sorted(PATHS)), st.integers(1, 4), st.integers(1, 20), st.integers(0, 100))
def test_the_order_of_the_runs_says_nothing(path, count, n, seed):
    lessons = lessons_for(path, count, n, batch_size=min(n, 7) if "batch_size" in PATHS[path] else None)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    losses, _ = stacked(lessons)
    others, _ = stacked([lessons[run] for run in order])
    assert [losses[run] for run in order] == list(others.values())


def lost_lessons():
    """Four runs by moments, of which two have targets that they meet at once."""
    lessons = lessons_for("moments")
    for run in (1, 2):
        rows = lessons[run].rows
        lessons[run] = replace(lessons[run], rows=Rows(rows.x, lessons[run].layer(rows.x)))
    return lessons


def test_runs_that_lose_their_digits_go_on_after_the_others_as_they_do_alone():
    lessons = lost_lessons()
    must_be_alone(lessons, *stacked(lessons))


@pytest.mark.parametrize("when", [1, 8, 16, 20])
def test_runs_that_wait_to_go_on_with_their_rows_may_leave_too(when):
    steps, told = fit(lost_lessons()), []
    for _ in range(when):
        told.append(next(steps))
    told.append(steps.send([2]))
    told += list(steps)
    assert {one.run for one in told if isinstance(one, Ended)} == {0, 1, 3}


def test_the_layers_given_to_a_stack_stay_bit_for_bit():
    lessons = lessons_for("rows")
    before = [copies(lesson.layer) for lesson in lessons]
    stacked(lessons)
    assert all(unchanged(lesson.layer, its) for lesson, its in zip(lessons, before, strict=True))


def test_scalings_may_differ():
    layers = [replace(layer_of(SMALL), scaling=scaling) for scaling in (0.1, 0.5, 1.0)]
    rows = Rows(*rows_for("mse", layers[0], 12))
    for path in ("moments", "batch"):
        lessons = [Lesson(layer, plan_for("mse", 12, path=path), rows) for layer in layers]
        must_be_alone(lessons, *stacked(lessons))
