"""A run that goes on from a saved state is the run that never stopped, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs.message import pack, unpack
from service.lora.spec import Spec
from service.training.lesson import Lesson
from service.training.plan import EarlyStopping
from service.training.rows import Rows
from service.training.state import as_parts, from_parts
from tests.training.making import SMALL, copies, gentle, learn, plan_for, rows_for, stacked, unchanged

OPTIMIZERS = {
    "adam": {"weight_decay": 0.1},
    "adamw": {},
    "sgd": {"momentum": 0.9, "weight_decay": 0.01},
}
MODES = {
    "moments": {"path": "moments"},
    "rows": {},
    "batches": {"batch_size": 7},
}
SCHEDULES = ["constant", "linear", "cosine"]


def travelled(state):
    """The state as it arrives in another process."""
    return from_parts(*unpack(bytes(pack(*as_parts(state)))))


def lesson_for(optimizer, schedule, mode, seed=0, dropout=0.0, validated=False, stopping=None, **chosen):
    layer = gentle(replace_train_bias(SMALL), seed)
    plan = plan_for(
        "mse",
        20,
        optimizer=optimizer,
        schedule=schedule,
        warmup_epochs=2.5,
        seed=seed,
        early_stopping=stopping,
        **{"epochs": 9, "lr": 0.02, **OPTIMIZERS[optimizer], **MODES[mode], **chosen},
    )
    held_out = Rows(*rows_for("mse", layer, 8, seed + 1)) if validated else None
    rows = Rows(*rows_for("mse", layer, 20, seed))
    return Lesson(layer, plan, rows, validation=held_out, dropout=0.0 if mode == "moments" else dropout)


def replace_train_bias(spec):
    return Spec(**{**vars(spec), "train_bias": True})


def must_go_on_as_it_was(lesson, epoch):
    """Resumed after this epoch, the rest of the run is what it was."""
    through = learn(lesson, keep=True)
    resumed = learn(replace(lesson, state=travelled(through.states[epoch])), keep=True)
    for name in through.epochs[0].curves:
        assert resumed.curve(name) == through.curve(name)[epoch:]
    assert resumed.fitted.metrics == through.fitted.metrics
    assert unchanged(resumed.fitted.layer, copies(through.fitted.layer))
    for name, array in through.fitted.state.arrays.items():
        assert np.array_equal(resumed.fitted.state.arrays[name], array), name
    assert as_parts(resumed.fitted.state)[0] == as_parts(through.fitted.state)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@settings(max_examples=3)
@given(
    seed=st.integers(0, 1_000), epoch=st.integers(1, 9), dropout=st.sampled_from([0.0, 0.4]), validated=st.booleans()
)
def test_a_run_resumed_at_any_epoch_equals_one_that_ran_through(
    optimizer, schedule, mode, seed, epoch, dropout, validated
):
    must_go_on_as_it_was(lesson_for(optimizer, schedule, mode, seed, dropout, validated), epoch)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("validated", [False, True])
@settings(max_examples=3)
@given(seed=st.integers(0, 1_000), data=st.data())
def test_early_stopping_goes_on_as_it_was(mode, optimizer, validated, seed, data):
    stopping = EarlyStopping(patience=3, min_delta=0.001)
    lesson = lesson_for(optimizer, "constant", mode, seed, 0.2, validated, stopping, epochs=25, lr=0.1)
    must_go_on_as_it_was(lesson, data.draw(st.integers(1, len(learn(lesson).losses))))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("validated", [False, True])
def test_a_run_that_had_just_stopped_early_goes_no_further(mode, validated):
    stopping = EarlyStopping(patience=2, min_delta=10.0)
    lesson = lesson_for("adam", "constant", mode, 0, 0.2, validated, stopping, epochs=25)
    must_go_on_as_it_was(lesson, len(learn(lesson).losses))


@pytest.mark.parametrize("chosen", [{"max_grad_norm": 0.1}, {"lr_b_ratio": 8.0}])
@pytest.mark.parametrize("mode", MODES)
def test_clipping_and_a_rate_of_its_own_for_b_go_on_as_they_were(chosen, mode):
    must_go_on_as_it_was(lesson_for("adam", "cosine", mode, **chosen), 4)


@pytest.mark.parametrize("which", ["training", "validation"])
@pytest.mark.parametrize("epoch", [1, 4, 9])
def test_a_run_that_has_changed_to_its_rows_goes_on_with_them(which, epoch):
    lesson = lesson_for("adam", "constant", "moments", validated=True)
    if which == "training":
        lesson = replace(lesson, rows=Rows(lesson.rows.x, lesson.layer(lesson.rows.x)))
    else:
        lesson = replace(lesson, validation=Rows(lesson.rows.x[:4], lesson.layer(lesson.rows.x[:4])))
        lesson = replace(lesson, plan=replace(lesson.plan, lr=1e-9))
    must_go_on_as_it_was(lesson, epoch)


@pytest.mark.parametrize("mode", MODES)
def test_resumed_runs_side_by_side_go_on_as_they_were(mode):
    lessons = [lesson_for("adamw", "linear", mode, seed, 0.3, True) for seed in range(3)]
    through, ends = stacked(lessons)
    states = [learn(lesson, keep=True).states[5] for lesson in lessons]
    rest, others = stacked([replace(lesson, state=state) for lesson, state in zip(lessons, states, strict=True)])
    for run in range(3):
        assert rest[run] == through[run][5:]
        assert unchanged(others[run].layer, copies(ends[run].layer))


@pytest.mark.parametrize("mode", MODES)
def test_a_state_is_a_copy_that_the_next_steps_leave_alone(mode):
    lesson = lesson_for("adam", "constant", mode, dropout=0.3)
    states = learn(lesson, keep=True).states
    early = learn(replace(lesson, plan=replace(lesson.plan, epochs=3)), keep=True).states[3]
    for name, array in early.arrays.items():
        assert np.array_equal(states[3].arrays[name], array), name
    assert states[3].nbytes == sum(array.nbytes for array in states[3].arrays.values())


WRITES = """
import os, sys, time
from service.codecs.message import pack
from service.training.fit import Epochs, fit
from service.training.state import as_parts
from tests.training.test_state import killed_lesson

for told in fit([killed_lesson(sys.argv[2])], burst=1):
    if isinstance(told, Epochs):
        with open(sys.argv[1] + ".new", "wb") as file:
            file.write(pack(*as_parts(told.state(0))))
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        time.sleep(0.002)
"""


def killed_lesson(mode):
    return lesson_for("adam", "cosine", mode, 3, 0.2, True, epochs=400)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_whose_process_is_killed_goes_on_from_the_file_as_if_nothing_had_been(mode, tmp_path):
    file = tmp_path / "state"
    process = subprocess.Popen([sys.executable, "-c", WRITES, str(file), mode], cwd=Path(__file__).parents[2])
    try:
        while not file.exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    state = from_parts(*unpack(file.read_bytes()))
    assert 0 < state.epoch < 400
    lesson = killed_lesson(mode)
    through, resumed = learn(lesson), learn(replace(lesson, state=state))
    assert resumed.losses == through.losses[state.epoch :]
    assert unchanged(resumed.fitted.layer, copies(through.fitted.layer))
    assert resumed.fitted.metrics == through.fitted.metrics


def test_the_facts_of_a_state_are_jsons_own():
    facts, _ = as_parts(learn(lesson_for("adam", "constant", "rows"), keep=True).states[2])
    assert json.loads(json.dumps(facts)) == facts
