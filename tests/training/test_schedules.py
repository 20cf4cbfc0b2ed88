"""The learning rate goes over a run as its schedule says."""

import math
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.training.plan import ScheduleName
from service.training.schedules import SCHEDULES, factor
from tests.training.making import SMALL, by_reference, gentle, in_double, plan_for, rows_for, run

EVERY_SCHEDULE = pytest.mark.parametrize("schedule", sorted(SCHEDULES))


def factors(schedule, steps, warmup):
    return [factor(schedule, step, steps, warmup) for step in range(steps)]


def test_the_schedules_that_may_be_named_are_those_that_exist():
    assert set(get_args(ScheduleName)) == set(SCHEDULES)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 2, [0.5, 1, 1, 1]),
        ("constant", 4, [0.25, 0.5, 0.75, 1]),
        ("linear", 0, [1, 0.75, 0.5, 0.25]),
        ("linear", 2, [0.5, 1, 1, 0.5]),
        ("cosine", 0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("cosine", 2, [0.5, 1, 1, 0.5]),
        ("linear", 0.5, [1, 1 - 0.5 / 3.5, 1 - 1.5 / 3.5, 1 - 2.5 / 3.5]),
        ("linear", 1.5, [1 / 1.5, 1, 0.8, 0.4]),
    ],
)
def test_four_steps_by_hand(schedule, warmup, expected):
    assert factors(schedule, 4, warmup) == pytest.approx(expected)


@EVERY_SCHEDULE
@settings(max_examples=100)
@given(st.integers(1, 200), st.floats(0, 1))
def test_a_factor_is_above_zero_and_at_most_one_rises_in_the_warmup_and_never_after(schedule, steps, share):
    warmup = share * steps
    all_of_them = factors(schedule, steps, warmup)
    assert all(0 < one <= 1 for one in all_of_them)
    risen = all_of_them[: math.floor(warmup)]
    assert risen == sorted(risen)
    after = all_of_them[math.floor(warmup) :]
    assert after == sorted(after, reverse=True)
    assert after[:1] in ([], [1.0])


@EVERY_SCHEDULE
@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.3, 6.0])
@pytest.mark.parametrize("mode", [{"path": "moments"}, {}, {"batch_size": 7}])
def test_a_run_equals_the_reference_loop_with_those_rates(schedule, warmup, mode):
    layer = gentle(SMALL)
    x, y = rows_for("mse", layer, 24)
    plan = plan_for("mse", 24, epochs=6, schedule=schedule, warmup_epochs=warmup, lr=0.05, **mode)
    losses, _ = by_reference(*in_double(layer, x, y), plan)
    assert run(layer, x, y, plan).losses == pytest.approx(losses, rel=1e-5)
    assert losses != by_reference(*in_double(layer, x, y), plan_for("mse", 24, epochs=6, lr=0.051, **mode))[0]
