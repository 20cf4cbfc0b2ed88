"""Runs are alike exactly when one stacked step can move them all."""

from dataclasses import replace

import pytest

from service.lora.spec import Spec
from service.training.cost import step_cost
from service.training.fitted import fitted
from service.training.plan import EarlyStopping, Plan
from service.training.sources import Inline, Random, Stored, Teacher
from service.training.together import likeness

SPEC = Spec(in_features=64, out_features=10, train_bias=False)
PATHS = {"moments": {}, "batch": {"batch_size": 10}}
EVERY_PATH = pytest.mark.parametrize("path", PATHS)


def like(path, spec=SPEC, seed=0, **chosen):
    plan = fitted(Plan(**{**PATHS[path], **chosen}), spec, seed, 2**40)
    assert plan.path == path
    return likeness(plan, spec)


@EVERY_PATH
@pytest.mark.parametrize(
    "chosen",
    [
        {"lr": 0.5},
        {"seed": 7},
        {"data": Random(seed=9)},
        {"data": Teacher()},
        {"data": Inline(n_samples=1_000, targets="numbers")},
        {"data": Inline(n_samples=1_000, targets="numbers", digest="0")},
        {"data": Stored(id="d", n_samples=1_000, targets="probabilities", in_features=64, out_features=10)},
        {"spec": replace(SPEC, alpha=17.0)},
        {"spec": replace(SPEC, use_rslora=True)},
        {"spec": replace(SPEC, init="normal")},
    ],
)
def test_what_only_numbers_tell_apart_is_alike(path, chosen):
    assert like(path, **chosen) == like(path)
    assert hash(like(path, **chosen)) == hash(like(path))


@EVERY_PATH
@pytest.mark.parametrize(
    "chosen",
    [
        {"spec": replace(SPEC, rank=5, alpha=None)},
        {"spec": replace(SPEC, out_features=11)},
        {"spec": replace(SPEC, in_features=65)},
        {"spec": replace(SPEC, train_bias=True)},
        {"optimizer": "sgd"},
        {"optimizer": "adamw"},
        {"epochs": 20},
        {"weight_decay": 0.1},
        {"betas": (0.5, 0.9)},
        {"schedule": "linear"},
        {"warmup_epochs": 1.0},
        {"max_grad_norm": 1.0},
        {"lr_b_ratio": 2.0},
        {"early_stopping": EarlyStopping(patience=3)},
        {"validation": 0.2},
        {"validation": Random()},
        {"data": Inline(n_samples=1_000, targets="numbers", weighted=True)},
    ],
)
def test_what_changes_the_steps_is_not_alike(path, chosen):
    assert like(path, **chosen) != like(path)


@pytest.mark.parametrize("chosen", [{"loss": "mae"}, {"batch_size": 11}, {"spec": replace(SPEC, dropout=0.1)}])
def test_what_changes_the_steps_by_rows_is_not_alike(chosen):
    assert like("batch", **chosen) != like("batch")


def test_the_number_of_rows_matters_only_where_the_rows_are_gone_through():
    more = Random(n_samples=1_500)
    assert like("moments", data=more) == like("moments")
    assert like("batch", data=more) != like("batch")
    assert like("moments", validation=0.2) == like("moments", validation=0.3)
    assert like("batch", validation=0.2) != like("batch", validation=0.3)
    assert like("moments", validation=more) == like("moments", validation=Random())
    assert like("batch", validation=more) != like("batch", validation=Random())


def test_the_two_paths_are_not_alike():
    assert like("moments") != likeness(replace(fitted(Plan(), SPEC, 0, 2**40), path="batch"), SPEC)


def test_a_step_costs_what_it_multiplies():
    by_moments = fitted(Plan(), SPEC, 0, 2**40)
    assert step_cost(by_moments, SPEC) == 4 * (64 + 10) * 64
    by_rows = replace(by_moments, path="batch")
    assert step_cost(by_rows, SPEC) == 3 * 4 * (64 + 10) * 1_000
    assert step_cost(fitted(Plan(batch_size=10), SPEC, 0, 2**40), SPEC) == 3 * 4 * (64 + 10) * 10
