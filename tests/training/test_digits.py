"""The digits are scikit-learn's, in a fixed partition."""

import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
from sklearn.datasets import load_digits

from service.training import digits


def test_the_file_is_byte_for_byte_scikit_learns():
    ours = files("service.training").joinpath("digits.csv.gz").read_bytes()
    assert ours == files("sklearn.datasets.data").joinpath("digits.csv.gz").read_bytes()


def test_all_digits_are_scikit_learns_divided_by_16():
    x, y = digits.load("all")
    theirs = load_digits()
    assert np.array_equal(x, theirs.data / 16)
    assert np.array_equal(y, theirs.target)


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_a_split_has_the_rows_and_types_it_says(split):
    x, y = digits.load(split)
    assert x.shape == (digits.ROWS[split], digits.FEATURES)
    assert y.shape == (digits.ROWS[split],)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert (x.min(), x.max()) == (0, 1)
    assert set(y.tolist()) == set(range(digits.CLASSES))


def test_train_and_test_are_a_partition_that_never_moves():
    x, y = digits.load("all")
    held_out = np.arange(1_797) % 5 == 0
    for split, rows in (("test", held_out), ("train", ~held_out)):
        assert np.array_equal(digits.load(split)[0], x[rows])
        assert np.array_equal(digits.load(split)[1], y[rows])
    assert (digits.ROWS["train"], digits.ROWS["test"]) == (1_437, 360)


def test_train_is_what_is_loaded_when_nothing_is_said():
    assert np.array_equal(digits.load()[0], digits.load("train")[0])


def test_what_a_caller_does_to_the_digits_does_not_reach_the_next():
    x, y = digits.load("all")
    x[:], y[:] = 9, 9
    again, classes = digits.load("all")
    assert again.max() == 1
    assert set(classes.tolist()) == set(range(10))


def test_the_digits_need_no_torch():
    check = "import sys, service.training.digits; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
