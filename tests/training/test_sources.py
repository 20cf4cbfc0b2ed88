"""Sources are what their names say, and rows that were sent are checked against the model."""

import numpy as np
import pytest

from service.errors import NonFinite, ShapeMismatch
from service.training.sources import (
    SERVES_AS,
    SOURCES,
    Digits,
    Inline,
    Random,
    Stored,
    check_rows,
    has_rows,
    is_weighted,
    targets_of,
)
from tests.training.making import refusal


def check(rows, classes, within="data"):
    """For a model of 3 inputs and 2 outputs."""
    check_rows(rows, classes, 3, 2, within)


CLASSES, NUMBERS = True, False


@pytest.mark.parametrize(
    ("classes", "x", "y"),
    [
        (NUMBERS, np.zeros((2, 3)), np.zeros((2, 2))),
        (CLASSES, np.zeros((2, 3)), np.array([0, 1])),
    ],
)
def test_rows_that_fit_pass(classes, x, y):
    check({"x": x, "y": y}, classes)
    check({"x": x, "y": y, "weight": np.array([0.0, 2.0])}, classes)


@pytest.mark.parametrize(
    ("classes", "x", "y", "pointer", "detail"),
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
def test_rows_of_another_shape_are_refused(classes, x, y, pointer, detail):
    rows = {"x": np.zeros(x), "y": np.zeros(y)}
    error = refusal(lambda: check(rows, classes), ShapeMismatch)
    assert error.detail == detail
    assert error.faults[0].pointer == pointer


@pytest.mark.parametrize(("y", "wrong"), [([0, 2], 2), ([-1, 0], -1), ([1, 2**62], 2**62)])
def test_a_class_that_the_model_does_not_have_is_refused(y, wrong):
    rows = {"x": np.zeros((2, 3)), "y": np.array(y)}
    error = refusal(lambda: check(rows, CLASSES))
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


@pytest.mark.parametrize(
    ("weight", "kind", "detail"),
    [
        ([1.0], ShapeMismatch, "data.weight has shape [1]; it must be [2]"),
        ([1.0, -1.0], None, "data.weight has -1.0; a weight is at least 0"),
        ([0.0, 0.0], NonFinite, "data.weight adds up to 0.0; it must be finite and above 0"),
        ([1.0, np.inf], NonFinite, "data.weight adds up to inf; it must be finite and above 0"),
    ],
)
def test_weights_that_weigh_nothing_or_less_are_refused(weight, kind, detail):
    rows = {"x": np.zeros((2, 3)), "y": np.zeros((2, 2)), "weight": np.array(weight)}
    error = refusal(lambda: check(rows, NUMBERS), *([kind] if kind else []))
    assert error.detail == detail
    assert error.faults[0].pointer == "/data/weight"


def test_an_error_names_the_object_that_holds_the_rows():
    error = refusal(lambda: check({"x": np.zeros((2, 4)), "y": np.zeros((2, 2))}, NUMBERS, "held"), ShapeMismatch)
    assert error.detail == "held.x has shape [2, 4]; it must be [2, 3]"
    assert error.faults[0].pointer == "/held/x"


def test_every_kind_of_targets_serves_as_itself():
    assert all(kind in serves for kind, serves in SERVES_AS.items())


def test_a_source_knows_whether_its_rows_are_there_and_weighted():
    assert set(SOURCES) == {"random", "teacher", "digits", "inline", "dataset"}
    for weighted in (False, True):
        assert is_weighted(Inline(n_samples=1, targets="numbers", weighted=weighted)) == weighted
        assert (
            is_weighted(
                Stored(id="d", n_samples=1, targets="numbers", in_features=1, out_features=1, weighted=weighted)
            )
            == weighted
        )
        assert (
            has_rows(Stored(id="d", n_samples=1, targets="numbers", in_features=1, out_features=1, kept=weighted))
            == weighted
        )
    assert has_rows(Random())
    assert not is_weighted(Digits())
