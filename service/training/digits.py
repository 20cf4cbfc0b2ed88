"""The UCI optical handwritten digits, carried in the package. Imports no torch.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49, CC BY 4.0. The file is the one scikit-learn ships as `digits.csv.gz`.
"""

import gzip
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FEATURES = 64
CLASSES = 10
ROWS = {"train": 1_437, "test": 360, "all": 1_797}
Split = Literal["train", "test", "all"]


@cache
def _table() -> NDArray[np.float32]:
    """The file: 1,797 rows of 64 grey values (0 … 16) and the class."""
    text = gzip.decompress(files(__package__).joinpath("digits.csv.gz").read_bytes()).decode()
    return np.array([line.split(",") for line in text.split()], dtype=np.float32)


def load(split: Split = "train") -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Inputs (n, 64) from 0 to 1 and classes (n,). Every fifth row, from the first on, is held out as `test`."""
    table = _table()
    held_out = np.arange(len(table)) % 5 == 0
    rows = table[{"train": ~held_out, "test": held_out, "all": np.ones_like(held_out)}[split]]
    return rows[:, :FEATURES] / np.float32(16), rows[:, FEATURES].astype(np.int64)
