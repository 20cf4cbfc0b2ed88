"""A plan has PyTorch's defaults, refuses what does not go together, and is settled before anything is allocated."""

import inspect
import json
import math
import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LimitExceeded, NonFinite, Validation
from service.training.plan import (
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_SETTINGS,
    EarlyStopping,
    LossName,
    OptimizerName,
    Plan,
    ScheduleName,
    as_dict,
    from_dict,
)
from service.training.sources import SOURCES, Digits, Inline, Random, Stored, Teacher
from tests import reference
from tests.training.making import refusal

SHARES = st.floats(0, 1, exclude_max=True)
SEEDS = st.none() | st.integers(0, 2**53 - 1)
FITTING = {  # which losses each kind of targets goes with
    "numbers": {"mse", "mae", "huber", "cosine"},
    "probabilities": {"mse", "mae", "huber", "cosine", "bce_with_logits"},
    "classes": {"cross_entropy"},
}


@st.composite
def plans(draw):
    """Any plan at all."""
    optimizer = draw(st.sampled_from(get_args(OptimizerName)))
    closed = optimizer == "closed_form"
    epochs = draw(st.integers(1, 10_000))
    values = {
        "epochs": st.just(1 if closed else epochs),
        "lr": st.floats(0, 1e6, exclude_min=True),
        "betas": st.tuples(SHARES, SHARES),
        "eps": st.floats(0, 1),
        "momentum": SHARES,
        "weight_decay": st.floats(0, 1e6),
        "schedule": st.sampled_from(get_args(ScheduleName)),
        "warmup_epochs": st.floats(0, epochs),
        "max_grad_norm": st.floats(0, 1e6, exclude_min=True),
        "lr_b_ratio": st.floats(0, 1e6, exclude_min=True),
        "early_stopping": st.builds(EarlyStopping, patience=st.integers(1, 10_000), min_delta=st.floats(0, 1e6)),
    }
    chosen = {name: draw(st.none() | values[name]) for name in OPTIMIZER_DEFAULTS[optimizer] if name != "epochs"}
    return Plan(
        epochs=draw(values["epochs"]),
        optimizer=optimizer,
        loss="mse" if closed else draw(st.sampled_from(get_args(LossName))),
        batch_size=None if closed else draw(st.none() | st.integers(1, 4)),
        seed=draw(SEEDS),
        data=draw(sources()),
        validation=draw(st.none() | st.floats(0.01, 0.5) | sources()),
        **chosen,
    )


def sources():
    """Any source of 8 rows at least."""
    samples, targets = st.integers(8, 10**8), st.sampled_from(sorted(FITTING))
    return st.one_of(
        st.builds(Random, n_samples=samples, seed=SEEDS),
        st.builds(
            Teacher,
            n_samples=samples,
            teacher_rank=st.none() | st.integers(1, 1_024),
            noise=st.floats(0, 1e6),
            seed=SEEDS,
        ),
        st.builds(Digits, split=st.sampled_from(["train", "test", "all"])),
        st.builds(Inline, n_samples=samples, targets=targets, weighted=st.booleans()),
        st.builds(
            Stored,
            id=st.text(max_size=5),
            n_samples=samples,
            targets=targets,
            weighted=st.booleans(),
            kept=st.booleans(),
            gathered=st.booleans(),
        ),
    )


def test_a_plan_without_settings_is_the_seed_documents_run():
    plan = Plan()
    assert (plan.epochs, plan.lr, plan.optimizer, plan.loss) == (10, 0.01, "adam", "mse")
    assert plan.batch_size is None
    assert plan.data == Random(n_samples=1_000)


@pytest.mark.parametrize("optimizer", sorted(reference.OPTIMIZERS))
def test_an_optimizer_has_the_settings_that_it_has_in_pytorch_with_its_defaults(optimizer):
    theirs = inspect.signature(reference.OPTIMIZERS[optimizer]).parameters
    ours = OPTIMIZER_DEFAULTS[optimizer]
    shared = {"betas", "eps", "momentum", "weight_decay"}
    assert set(ours) & shared == set(theirs) & shared
    for name in set(ours) & shared:
        assert getattr(Plan(optimizer=optimizer), name) == ours[name] == theirs[name].default


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZER_DEFAULTS))
@pytest.mark.parametrize("name", OPTIMIZER_SETTINGS)
def test_a_setting_that_the_optimizer_does_not_have_is_refused(optimizer, name):
    values = {"betas": (0.5, 0.5), "epochs": 1, "schedule": "linear", "early_stopping": EarlyStopping(patience=1)}
    value = values.get(name, 0.5)
    if name in OPTIMIZER_DEFAULTS[optimizer]:
        assert getattr(Plan(optimizer=optimizer, **{name: value}), name) == value
    else:
        error = refusal(lambda: Plan(optimizer=optimizer, **{name: value}))
        allowed = ", ".join(OPTIMIZER_DEFAULTS[optimizer])
        assert error.detail == f"{optimizer} has no {name}; its settings are {allowed}"
        assert error.faults[0].pointer == f"/{name}"
        assert getattr(Plan(optimizer=optimizer), name) is None


@pytest.mark.parametrize("wrong", [{"loss": "mae"}, {"epochs": 2}, {"batch_size": 4}])
def test_what_is_solved_in_one_step_has_one_step(wrong):
    assert Plan(optimizer="closed_form").epochs == 1
    error = refusal(lambda: Plan(optimizer="closed_form", **wrong))
    assert error.detail == "closed_form solves mse on all rows in one step: loss mse, epochs 1 and no batch_size"
    assert error.faults[0].pointer == "/optimizer"


@pytest.mark.parametrize(
    ("settings", "kind", "pointer", "detail"),
    [
        ({"epochs": 0}, Validation, "/epochs", "epochs is 0; it must be at least 1"),
        ({"epochs": 10_001}, LimitExceeded, "/epochs", "epochs is 10001; it must be at most 10000"),
        ({"lr": 0}, Validation, "/lr", "lr is 0; it must be above 0"),
        ({"lr": 2e6}, LimitExceeded, "/lr", "lr is 2000000.0; it must be at most 1000000"),
        ({"lr": math.nan}, NonFinite, "/lr", "lr is nan; it must be a finite number"),
        ({"betas": (0.9, 1.0)}, Validation, "/betas", "betas is 1.0; it must be below 1"),
        ({"betas": (-0.1, 0.9)}, Validation, "/betas", "betas is -0.1; it must be at least 0"),
        ({"eps": -1.0}, Validation, "/eps", "eps is -1.0; it must be at least 0"),
        ({"optimizer": "sgd", "momentum": 1}, Validation, "/momentum", "momentum is 1; it must be below 1"),
        ({"weight_decay": -1}, Validation, "/weight_decay", "weight_decay is -1; it must be at least 0"),
        ({"batch_size": 0}, Validation, "/batch_size", "batch_size is 0; it must be at least 1"),
        ({"batch_size": 1_001}, Validation, "/batch_size", "batch_size is 1001; the data has 1000 rows to train on"),
        ({"warmup_epochs": 10.5}, Validation, "/warmup_epochs", "warmup_epochs is 10.5; the run has 10 epochs"),
        ({"max_grad_norm": 0}, Validation, "/max_grad_norm", "max_grad_norm is 0; it must be above 0"),
        ({"lr_b_ratio": 0}, Validation, "/lr_b_ratio", "lr_b_ratio is 0; it must be above 0"),
        (
            {"early_stopping": EarlyStopping(patience=0)},
            Validation,
            "/early_stopping/patience",
            "patience is 0; it must be at least 1",
        ),
        ({"seed": -1}, Validation, "/seed", "seed is -1; it must be at least 0"),
        ({"seed": 2**53}, LimitExceeded, "/seed", f"seed is {2**53}; it must be at most {2**53 - 1}"),
        ({"data": Random(n_samples=0)}, Validation, "/data/n_samples", "n_samples is 0; it must be at least 1"),
        (
            {"data": Random(n_samples=10**8 + 1)},
            LimitExceeded,
            "/data/n_samples",
            "n_samples is 100000001; it must be at most 100000000",
        ),
        ({"data": Random(seed=-1)}, Validation, "/data/seed", "seed is -1; it must be at least 0"),
        ({"data": Teacher(noise=-1)}, Validation, "/data/noise", "noise is -1; it must be at least 0"),
        ({"data": Teacher(noise=math.inf)}, NonFinite, "/data/noise", "noise is inf; it must be a finite number"),
        (
            {"data": Teacher(teacher_rank=0)},
            Validation,
            "/data/teacher_rank",
            "teacher_rank is 0; it must be at least 1",
        ),
        (
            {"data": Inline(n_samples=0, targets="numbers")},
            Validation,
            "/data/n_samples",
            "n_samples is 0; it must be at least 1",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(settings, kind, pointer, detail):
    error = refusal(lambda: Plan(**settings), kind)
    assert error.detail == detail
    assert (error.faults[0].pointer, error.faults[0].detail) == (pointer, detail)


def test_a_batch_may_be_all_the_data_but_not_more():
    assert Plan(batch_size=360, data=Digits(split="test")).batch_size == 360
    error = refusal(lambda: Plan(batch_size=361, data=Digits(split="test")))
    assert error.detail == "batch_size is 361; the data has 360 rows to train on"


@given(plans())
def test_a_plan_survives_json(plan):
    assert from_dict(json.loads(json.dumps(as_dict(plan)))) == plan


@given(plans())
def test_a_plan_as_a_dict_shows_every_setting_in_force(plan):
    shown = as_dict(plan)
    in_force = {name for name in OPTIMIZER_SETTINGS if shown[name] is not None}
    optional = {"max_grad_norm", "early_stopping"}
    assert set(OPTIMIZER_DEFAULTS[plan.optimizer]) - optional == in_force - optional
    assert in_force <= set(OPTIMIZER_DEFAULTS[plan.optimizer])
    assert shown["data"]["kind"] in SOURCES
    assert "targets" not in shown["data"] or shown["data"]["kind"] in ("inline", "dataset")


def test_a_plan_needs_no_torch():
    check = "import sys, service.training.plan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
