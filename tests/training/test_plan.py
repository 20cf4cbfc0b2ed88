"""A plan has PyTorch's defaults, refuses what does not go together, and is settled before anything is allocated."""

import inspect
import json
import math
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LimitExceeded, NonFinite, ShapeMismatch, Validation
from service.lora.spec import Spec
from service.training.plan import (
    DATA_KINDS,
    LOOKED_AT,
    LOSS_TARGETS,
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_SETTINGS,
    Digits,
    Inline,
    LossName,
    OptimizerName,
    Plan,
    Random,
    Teacher,
    as_dict,
    bytes_needed,
    check_rows,
    fitted,
    from_dict,
    targets_of,
)
from tests import reference

SPEC = Spec(in_features=64, out_features=10)
ANY_BYTES = 2**60
SHARES = st.floats(0, 1, exclude_max=True)
SEEDS = st.none() | st.integers(0, 2**53 - 1)
FITTING = {  # which losses each kind of targets goes with
    "numbers": {"mse", "mae", "huber", "cosine"},
    "probabilities": {"mse", "mae", "huber", "cosine", "bce_with_logits"},
    "classes": {"cross_entropy"},
}
DATA = [
    Random(),
    Teacher(),
    Digits(),
    Inline(n_samples=3, targets="numbers"),
    Inline(n_samples=3, targets="probabilities"),
    Inline(n_samples=3, targets="classes"),
]


@st.composite
def plans(draw):
    """Any plan at all."""
    optimizer = draw(st.sampled_from(get_args(OptimizerName)))
    values = {
        "betas": st.tuples(SHARES, SHARES),
        "eps": st.floats(0, 1),
        "momentum": SHARES,
        "weight_decay": st.floats(0, 1e6),
    }
    data = draw(
        st.one_of(
            st.builds(Random, n_samples=st.integers(8, 10**8), seed=SEEDS),
            st.builds(
                Teacher,
                n_samples=st.integers(8, 10**8),
                teacher_rank=st.none() | st.integers(1, 1_024),
                noise=st.floats(0, 1e6),
                seed=SEEDS,
            ),
            st.builds(Digits, split=st.sampled_from(["train", "test", "all"])),
            st.builds(Inline, n_samples=st.integers(8, 10**8), targets=st.sampled_from(sorted(FITTING))),
        )
    )
    return Plan(
        epochs=draw(st.integers(1, 10_000)),
        lr=draw(st.floats(0, 1e6, exclude_min=True)),
        optimizer=optimizer,
        loss=draw(st.sampled_from(get_args(LossName))),
        batch_size=draw(st.none() | st.integers(1, 8)),
        seed=draw(SEEDS),
        data=data,
        **{name: draw(st.none() | values[name]) for name in OPTIMIZER_DEFAULTS[optimizer]},
    )


def refusal(make, kind=Validation):
    """The error that making something raises: exactly of this kind, with one fault."""
    with pytest.raises(Validation) as refused:
        make()
    assert type(refused.value) is kind
    assert len(refused.value.faults) == 1
    return refused.value


def test_a_plan_without_settings_is_the_seed_documents_run():
    plan = Plan()
    assert (plan.epochs, plan.lr, plan.optimizer, plan.loss) == (10, 0.01, "adam", "mse")
    assert plan.batch_size is None
    assert plan.data == Random(n_samples=1_000)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZER_DEFAULTS))
def test_the_defaults_of_an_optimizer_are_those_of_pytorch(optimizer):
    theirs = inspect.signature(reference.OPTIMIZERS[optimizer]).parameters
    for name, value in OPTIMIZER_DEFAULTS[optimizer].items():
        assert theirs[name].default == value
        assert getattr(Plan(optimizer=optimizer), name) == value


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZER_DEFAULTS))
def test_an_optimizer_has_every_setting_that_it_has_in_pytorch(optimizer):
    theirs = inspect.signature(reference.OPTIMIZERS[optimizer]).parameters
    assert set(OPTIMIZER_DEFAULTS[optimizer]) == set(theirs) & set(OPTIMIZER_SETTINGS)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZER_DEFAULTS))
@pytest.mark.parametrize("name", OPTIMIZER_SETTINGS)
def test_a_setting_that_the_optimizer_does_not_have_is_refused(optimizer, name):
    value = (0.5, 0.5) if name == "betas" else 0.5
    if name in OPTIMIZER_DEFAULTS[optimizer]:
        assert getattr(Plan(optimizer=optimizer, **{name: value}), name) == value
    else:
        error = refusal(lambda: Plan(optimizer=optimizer, **{name: value}))
        allowed = ", ".join(OPTIMIZER_DEFAULTS[optimizer])
        assert error.detail == f"{optimizer} has no {name}; its settings are lr, {allowed}"
        assert error.faults[0].pointer == f"/{name}"
        assert getattr(Plan(optimizer=optimizer), name) is None


@pytest.mark.parametrize(
    ("settings", "kind", "pointer", "detail"),
    [
        ({"epochs": 0}, Validation, "/epochs", "epochs is 0; it must be at least 1"),
        ({"epochs": 10_001}, LimitExceeded, "/epochs", "epochs is 10001; it must be at most 10000"),
        ({"lr": 0}, Validation, "/lr", "lr is 0; it must be above 0"),
        ({"lr": 2e6}, LimitExceeded, "/lr", "lr is 2000000.0; it must be at most 1000000.0"),
        ({"lr": math.nan}, NonFinite, "/lr", "lr is nan; it must be a finite number"),
        ({"betas": (0.9, 1.0)}, Validation, "/betas", "betas is 1.0; it must be below 1"),
        ({"betas": (-0.1, 0.9)}, Validation, "/betas", "betas is -0.1; it must be at least 0"),
        ({"eps": -1.0}, Validation, "/eps", "eps is -1.0; it must be at least 0"),
        ({"optimizer": "sgd", "momentum": 1}, Validation, "/momentum", "momentum is 1; it must be below 1"),
        ({"weight_decay": -1}, Validation, "/weight_decay", "weight_decay is -1; it must be at least 0"),
        ({"batch_size": 0}, Validation, "/batch_size", "batch_size is 0; it must be at least 1"),
        ({"batch_size": 1_001}, Validation, "/batch_size", "batch_size is 1001; the data has 1000 rows"),
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
    assert error.detail == "batch_size is 361; the data has 360 rows"


@given(plans())
def test_a_plan_survives_json(plan):
    assert from_dict(json.loads(json.dumps(as_dict(plan)))) == plan


@given(plans())
def test_a_plan_as_a_dict_shows_every_setting_in_force(plan):
    shown = as_dict(plan)
    assert set(OPTIMIZER_DEFAULTS[plan.optimizer]) == {name for name in OPTIMIZER_SETTINGS if shown[name] is not None}
    assert shown["data"]["kind"] in DATA_KINDS
    assert "targets" not in shown["data"] or shown["data"]["kind"] == "inline"


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("loss", sorted(LOSS_TARGETS))
def test_data_fits_a_loss_exactly_when_its_targets_are_what_the_loss_compares_with(data, loss):
    plan = Plan(data=data, loss=loss)
    if loss in FITTING[data.targets]:
        assert fitted(plan, SPEC, 0, ANY_BYTES).loss == loss
    else:
        error = refusal(lambda: fitted(plan, SPEC, 0, ANY_BYTES))
        assert error.faults[0].pointer == "/loss"
        assert error.detail.startswith(f"{data.kind} data has ")
        assert f"the loss {loss} compares outputs with " in error.detail


@pytest.mark.parametrize("data", DATA)
def test_a_refused_loss_is_told_every_loss_that_fits(data):
    loss = "cross_entropy" if data.targets != "classes" else "mse"
    error = refusal(lambda: fitted(Plan(data=data, loss=loss), SPEC, 0, ANY_BYTES))
    told = error.detail.partition("losses that fit this data: ")[2].split(", ")
    assert set(told) == FITTING[data.targets]


def test_the_refusal_of_a_loss_reads_as_one_sentence():
    error = refusal(lambda: fitted(Plan(loss="cross_entropy"), SPEC, 0, ANY_BYTES))
    assert error.detail == (
        "random data has numbers of shape (n, out_features); the loss cross_entropy compares outputs with "
        "integer classes of shape (n,); losses that fit this data: mse, mae, huber, cosine"
    )


@given(SEEDS, SEEDS, st.integers(0, 2**32))
def test_a_seed_that_is_open_is_drawn_and_the_datas_follows_the_plans(seed, data_seed, drawn):
    for kind in (Random, Teacher):
        plan = fitted(Plan(seed=seed, data=kind(seed=data_seed)), SPEC, drawn, ANY_BYTES)
        assert plan.seed == (drawn if seed is None else seed)
        assert plan.data.seed == (plan.seed if data_seed is None else data_seed)


@given(plans())
def test_fitting_settles_a_plan_once_and_for_all(plan):
    spec = Spec(in_features=64, out_features=2_000, rank=3)
    try:
        once = fitted(plan, spec, 7, ANY_BYTES)
    except Validation:
        return
    assert fitted(once, spec, 8, 2**60) == once
    assert plan == from_dict(as_dict(plan))  # the open plan is as it was


def test_a_teacher_has_the_models_rank_unless_it_has_its_own():
    taught = [fitted(Plan(data=Teacher(teacher_rank=rank)), SPEC, 0, ANY_BYTES).data for rank in (None, 1, 10)]
    assert [data.teacher_rank for data in taught] == [4, 1, 10]


def test_a_teacher_of_a_rank_that_the_layer_cannot_have_is_refused():
    error = refusal(lambda: fitted(Plan(data=Teacher(teacher_rank=11)), SPEC, 0, ANY_BYTES))
    assert error.detail == "teacher_rank is 11; it is at most min(in_features, out_features) = 10"
    assert error.faults[0].pointer == "/data/teacher_rank"


@pytest.mark.parametrize(("in_features", "out_features", "fits"), [(64, 10, 1), (64, 12, 1), (64, 9, 0), (63, 10, 0)])
def test_digits_fit_64_features_and_ten_or_more_outputs(in_features, out_features, fits):
    spec = Spec(in_features=in_features, out_features=out_features)
    plan = Plan(data=Digits(), loss="cross_entropy")
    if fits:
        assert fitted(plan, spec, 0, ANY_BYTES).data == Digits()
    else:
        error = refusal(lambda: fitted(plan, spec, 0, ANY_BYTES), ShapeMismatch)
        assert error.detail == (
            f"digits has 64 features and 10 classes; the model maps {in_features} features to {out_features} outputs"
        )
        assert error.faults[0].pointer == "/data"


@given(st.integers(1, 10**8), st.integers(1, 65_536), st.integers(1, 65_536), st.booleans())
def test_data_is_refused_exactly_when_it_needs_more_bytes_than_are_allowed(n, in_features, out_features, whole):
    spec = Spec(in_features=in_features, out_features=out_features, rank=1)
    plan = Plan(data=Random(n_samples=n), batch_size=None if whole else 1)
    needed = bytes_needed(plan, spec)
    assert needed >= 4 * n * (in_features + out_features)  # the rows themselves
    assert fitted(plan, spec, 0, needed).data.n_samples == n
    error = refusal(lambda: fitted(plan, spec, 0, needed - 1), LimitExceeded)
    assert error.faults[0].pointer == "/data"
    assert error.facts == {"bytes_needed": needed, "bytes_allowed": needed - 1}
    assert error.detail == (
        f"{n} rows of {in_features} → {out_features} need {needed} bytes to train on at rank 1; "
        f"{needed - 1} are allowed (LORA_TRAIN_MIB), so use fewer rows or a smaller batch or rank"
    )


def test_rows_that_no_machine_could_hold_are_refused_before_anything_is_allocated():
    spec = Spec(in_features=65_536, out_features=65_536)
    error = refusal(lambda: fitted(Plan(data=Random(n_samples=10**8)), spec, 0, 2**30), LimitExceeded)
    assert error.facts["bytes_needed"] > 10**14


@given(st.integers(2 * LOOKED_AT, 10**8 - 1))
def test_more_rows_need_more_bytes_and_small_batches_fewer_than_a_full_one(n):
    def needed(n, size):
        return bytes_needed(Plan(data=Random(n_samples=n), batch_size=size), SPEC)

    assert needed(n, 8) < needed(n, None) < needed(n + 1, None)


CLASSES = Plan(data=Inline(n_samples=2, targets="classes"), loss="cross_entropy")
NUMBERS = Plan(data=Inline(n_samples=2, targets="numbers"))
PAIR = Spec(in_features=3, out_features=2, rank=1)


@pytest.mark.parametrize(
    ("plan", "x", "y"),
    [
        (NUMBERS, np.zeros((2, 3)), np.zeros((2, 2))),
        (CLASSES, np.zeros((2, 3)), np.array([0, 1])),
        (Plan(), None, None),  # rows that are not inline are nobody's to check
    ],
)
def test_rows_that_fit_pass(plan, x, y):
    check_rows({"x": x, "y": y}, plan, PAIR)


@pytest.mark.parametrize(
    ("plan", "x", "y", "pointer", "detail"),
    [
        (NUMBERS, (2, 4), (2, 2), "/data/x", "data.x has shape [2, 4]; it must be [2, 3]"),
        (NUMBERS, (2,), (2, 2), "/data/x", "data.x has shape [2]; it must be [2, 3]"),
        (NUMBERS, (2, 3, 1), (2, 2), "/data/x", "data.x has shape [2, 3, 1]; it must be [2, 3]"),
        (NUMBERS, (2, 3), (2, 3), "/data/y", "data.y has shape [2, 3]; it must be [2, 2]"),
        (NUMBERS, (2, 3), (3, 2), "/data/y", "data.y has shape [3, 2]; it must be [2, 2]"),
        (NUMBERS, (2, 3), (2,), "/data/y", "data.y has shape [2]; it must be [2, 2]"),
        (CLASSES, (2, 3), (3,), "/data/y", "data.y has shape [3]; it must be [2]"),
        (CLASSES, (2, 3), (2, 1), "/data/y", "data.y has shape [2, 1]; it must be [2]"),
    ],
)
def test_rows_of_another_shape_are_refused(plan, x, y, pointer, detail):
    rows = {"x": np.zeros(x), "y": np.zeros(y)}
    error = refusal(lambda: check_rows(rows, plan, PAIR), ShapeMismatch)
    assert error.detail == detail
    assert error.faults[0].pointer == pointer


@pytest.mark.parametrize(("y", "wrong"), [([0, 2], 2), ([-1, 0], -1), ([1, 2**62], 2**62)])
def test_a_class_that_the_model_does_not_have_is_refused(y, wrong):
    rows = {"x": np.zeros((2, 3)), "y": np.array(y)}
    error = refusal(lambda: check_rows(rows, CLASSES, PAIR))
    assert error.detail == f"data.y has the class {wrong}; the model's classes are 0 to 1"
    assert error.faults[0].pointer == "/data/y"


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (np.array([3, 1]), "classes"),
        (np.array([[0.0, 1.0], [0.5, 0.25]]), "probabilities"),
        (np.array([[0.0, 1.5]]), "numbers"),
        (np.array([[-0.1, 1.0]]), "numbers"),
    ],
)
def test_the_kind_of_targets_is_seen_in_the_targets(y, kind):
    assert targets_of(y) == kind


def test_a_plan_needs_no_torch():
    check = "import sys, service.training.plan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
