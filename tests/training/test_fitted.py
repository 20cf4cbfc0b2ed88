"""A plan is settled for its model before anything is allocated: what fits, what it takes, and by which path."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import LimitExceeded, ShapeMismatch, Validation
from service.lora.spec import Spec
from service.training.cost import LOOKED_AT, bytes_needed
from service.training.fitted import fitted
from service.training.plan import LOSS_TARGETS, Plan, as_dict, from_dict
from service.training.sources import Digits, Inline, Random, Stored, Teacher
from tests.training.making import refusal
from tests.training.test_plan import FITTING, SEEDS, plans

SPEC = Spec(in_features=64, out_features=10)
ANY_BYTES = 2**60
DATA = [
    Random(),
    Teacher(),
    Digits(),
    Inline(n_samples=3, targets="numbers"),
    Inline(n_samples=3, targets="probabilities"),
    Inline(n_samples=3, targets="classes"),
]


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


UPLOADED = Stored(id="d", n_samples=3, targets="classes", in_features=64, out_features=None, classes=1)


@pytest.mark.parametrize("classes", [Inline(n_samples=3, targets="classes"), UPLOADED])
@pytest.mark.parametrize(
    ("within", "loss"), [("data", "cross_entropy"), ("data", "mse"), ("data", "cosine"), ("validation", "mse")]
)
def test_classes_are_no_targets_for_one_output(classes, within, loss):
    plan = Plan(**{within: classes}, loss=loss)
    error = refusal(lambda: fitted(plan, Spec(in_features=64, out_features=1), 0, ANY_BYTES))
    assert "use bce_with_logits, or another loss of numbers, with y as [[0], [1]]" in error.detail
    assert error.faults[0].pointer == ("/loss" if within == "data" else "/validation")


@given(SEEDS, SEEDS, st.integers(0, 2**32))
def test_a_seed_that_is_open_is_drawn_and_the_datas_follows_the_plans(seed, data_seed, drawn):
    for kind in (Random, Teacher):
        plan = fitted(Plan(seed=seed, data=kind(seed=data_seed)), SPEC, drawn, ANY_BYTES)
        assert plan.seed == (drawn if seed is None else seed)
        assert plan.data.seed == (plan.seed if data_seed is None else data_seed)


@settings(max_examples=60)
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
    needed = bytes_needed(fitted(plan, spec, 0, 2**60), spec)
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


STORED = Stored(id="d", n_samples=1_000, targets="numbers", in_features=64, out_features=10)


@pytest.mark.parametrize(
    ("chosen", "spec", "path"),
    [
        ({}, {}, "moments"),
        ({"data": Random(n_samples=3)}, {}, "batch"),  # fewer rows than it costs to make moments of them
        ({"epochs": 1}, {}, "batch"),
        ({"data": replace(STORED, gathered=True), "epochs": 1}, {}, "moments"),
        ({"data": replace(STORED, gathered=True), "epochs": 1, "validation": 0.5}, {}, "batch"),
        ({"data": replace(STORED, kept=False, gathered=True)}, {}, "moments"),
        ({"data": replace(STORED, kept=False, n_samples=1)}, {}, "moments"),
        ({"optimizer": "closed_form", "data": Random(n_samples=3)}, {}, "moments"),
        ({"optimizer": "closed_form"}, {"dropout": 0.5}, "moments"),
        ({"loss": "mae"}, {}, "batch"),
        ({"batch_size": 1_000}, {}, "batch"),
        ({}, {"dropout": 0.5}, "batch"),
    ],
)
def test_moments_are_taken_where_they_say_all_and_cost_less_than_the_rows(chosen, spec, path):
    assert fitted(Plan(**chosen), replace(SPEC, **spec), 0, ANY_BYTES).path == path


def test_moments_larger_than_is_allowed_are_only_a_refusal_where_there_is_no_other_way():
    needed = 8 * 64 * 74
    for allowed, path in ((needed, "moments"), (needed - 1, "batch")):
        assert fitted(Plan(), SPEC, 0, ANY_BYTES, allowed).path == path
    for plan in (Plan(optimizer="closed_form"), Plan(data=replace(STORED, kept=False))):
        assert fitted(plan, SPEC, 0, ANY_BYTES, needed).path == "moments"
        error = refusal(lambda plan=plan: fitted(plan, SPEC, 0, ANY_BYTES, needed - 1), LimitExceeded)
        assert (
            error.detail == f"the moments of 64 → 10 take {needed} bytes; {needed - 1} are allowed (LORA_MOMENTS_MIB)"
        )
        assert error.facts == {"bytes_needed": needed, "bytes_allowed": needed - 1}


@pytest.mark.parametrize(
    ("chosen", "spec", "why"),
    [
        ({"loss": "mae"}, {}, "loss"),
        ({"batch_size": 8}, {}, "batch_size"),
        ({"validation": 0.5}, {}, "validation"),
        ({}, {"dropout": 0.5}, "dropout"),
    ],
)
def test_what_needs_rows_is_refused_where_their_moments_alone_are_kept(chosen, spec, why):
    plan = Plan(data=replace(STORED, kept=False), **chosen)
    error = refusal(lambda: fitted(plan, replace(SPEC, **spec), 0, ANY_BYTES))
    assert error.detail == f"the data set was uploaded with keep_rows false; this {why} needs its rows"
    assert error.faults[0].pointer == f"/{why}"


@pytest.mark.parametrize("chosen", [{"loss": "mae"}, {"batch_size": 8}, {"path": "batch"}])
def test_a_run_by_rows_is_refused_moments_alone_to_validate_on(chosen):
    plan = Plan(data=Random(n_samples=20), validation=replace(STORED, kept=False), **chosen)
    error = refusal(lambda: fitted(plan, SPEC, 0, ANY_BYTES))
    assert error.faults[0].pointer == "/validation"
    assert "keep_rows false" in error.detail


@given(st.integers(2, 1_000), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_share_held_out_leaves_a_row_on_either_side(n, share):
    plan = Plan(data=Random(n_samples=n), validation=share)
    assert 1 <= plan.n_validation <= n - 1
    assert plan.n_validation + plan.n_train == n
    assert abs(plan.n_validation - share * n) <= 1
    assert plan.held_out is None


def test_one_row_cannot_be_shared_out():
    error = refusal(lambda: fitted(Plan(data=Random(n_samples=1), validation=0.5), SPEC, 0, ANY_BYTES))
    assert error.detail == "the data has 1 row; at least 2 are needed to hold some out"


def test_rows_to_validate_on_are_never_drawn_from_the_seed_of_the_training():
    plan = fitted(Plan(validation=Random(), data=Random()), SPEC, 2**53 - 1, ANY_BYTES)
    assert (plan.data.seed, plan.validation.seed) == (2**53 - 1, 0)
    assert fitted(Plan(validation=Random(seed=3)), SPEC, 3, ANY_BYTES).validation.seed == 3  # unless that is asked for
    assert fitted(Plan(validation=Teacher()), SPEC, 3, ANY_BYTES).validation.teacher_rank == SPEC.rank


def test_data_to_validate_on_must_fit_as_the_data_does():
    error = refusal(lambda: fitted(Plan(validation=Digits()), SPEC, 0, ANY_BYTES))
    assert error.faults[0].pointer == "/validation"
    error = refusal(lambda: fitted(Plan(validation=Teacher(teacher_rank=11)), SPEC, 0, ANY_BYTES))
    assert error.faults[0].pointer == "/validation/teacher_rank"
