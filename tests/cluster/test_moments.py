"""The moments that a cluster sums up, of files of every kind, are those of one pass over the rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import ray.data
import torch

from service.cluster import moments
from service.cluster.moments import Columns
from service.errors import Validation
from service.training.arrays import backend_of
from service.training.moments import as_arrays
from service.training.moments import gathered as one_pass
from tests.cluster.nodes import Nodes

# Ray Data warns of settings that it makes itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

N, INPUTS, OUTPUTS = 5_000, 6, 2
NAMES = [*(f"x{k}" for k in range(INPUTS)), *(f"y{k}" for k in range(OUTPUTS))]
TARGETS = NAMES[INPUTS:]


@pytest.fixture(scope="module", params=["address", "outside"])
def on_ray(cluster: Nodes, request: pytest.FixtureRequest) -> Iterator[None]:
    with moments.at(getattr(cluster, request.param)):
        yield


def drawn() -> np.ndarray:
    """Rows far from 0, so that digits are lost where sums are not taken about a mean."""
    draw = np.random.default_rng(3)
    return (draw.standard_normal((N, INPUTS + OUTPUTS)) + 100 * np.arange(INPUTS + OUTPUTS)).astype(np.float32)


def once(rows: np.ndarray, weight: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The moments by one pass over the rows."""
    x, y = torch.from_numpy(rows[:, :INPUTS].copy()), torch.from_numpy(rows[:, INPUTS:].copy())
    return as_arrays(one_pass(backend_of(x), x, y, None if weight is None else torch.from_numpy(weight)))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether moments are equal within 1e-9 of the size of each array."""
    return all(np.abs(one[name] - other[name]).max() <= 1e-9 * np.abs(other[name]).max() for name in other)


def table(rows: np.ndarray) -> pa.Table:
    return pa.table({name: rows[:, place] for place, name in enumerate(NAMES)})


def as_parquet(folder: Path, rows: np.ndarray) -> tuple[str, Columns]:
    for part, some in enumerate(np.array_split(rows, 3)):  # of several files, with several groups of rows
        pyarrow.parquet.write_table(table(some), folder / f"{part}.parquet", row_group_size=400)
    return str(folder), Columns(TARGETS)


def as_csv(folder: Path, rows: np.ndarray) -> tuple[str, Columns]:
    pyarrow.csv.write_csv(table(rows.astype(np.float64)), folder / "rows.csv")
    return str(folder / "rows.csv"), Columns(["-2", "-1"])


def as_npy(folder: Path, rows: np.ndarray) -> tuple[str, Columns]:
    for part, some in enumerate(np.array_split(rows, 3)):
        np.save(folder / f"{part}.npy", some)
    return str(folder), Columns(["-2", "8"])


@pytest.mark.parametrize("form", [as_parquet, as_csv, as_npy])
def test_files_of_every_kind_have_the_moments_of_one_pass(on_ray, tmp_path, form):
    path, columns = form(tmp_path, drawn())
    found = moments.gathered(moments.read(path, form.__name__.removeprefix("as_")), columns)
    assert same(found, once(drawn()))
    assert found["counts"][:2].tolist() == [N, N]


def test_vectors_weights_and_columns_of_no_use_are_told_apart_by_their_names(on_ray):
    rows, weight = drawn(), np.random.default_rng(4).integers(0, 3, N).astype(np.float32)
    weight[: N // 2] = 0  # whole blocks weigh nothing
    made = pa.table({
        "name": ["anything"] * N,
        "embedding": pa.array(list(rows[:, :INPUTS])),
        "wanted": pa.array(list(rows[:, INPUTS:])),
        "times": weight,
    })  # fmt: skip
    data = ray.data.from_arrow([made.slice(start, 700) for start in range(0, N, 700)])
    found = moments.gathered(data, Columns(["wanted"], ["embedding"], "times"))
    assert same(found, once(rows, weight))


@pytest.mark.parametrize(
    ("columns", "wrong"),
    [
        (Columns(["z"]), "there is no column 'z'; there are name, x, y, hole, short"),
        (Columns(["9"]), "there is no column '9'"),
        (Columns(["y"]), "column name holds .*, and no numbers; name the columns to learn from"),
        (Columns(["y"], ["hole"]), "column hole holds numbers that are missing"),
        (Columns(["y"], ["short"]), "column short holds vectors of several lengths"),
        (Columns(["y"], ["x"], "y"), "the weight -.* is below 0"),
        (Columns(["y"], []), "some must be inputs, and some targets"),
    ],
)
def test_what_cannot_be_summed_up_is_told_in_a_sentence(on_ray, columns, wrong):
    made = {
        "name": ["a", "b"],
        "x": [1.0, 2.0],
        "y": [-1.0, 1.0],
        "hole": [1.0, None],
        "short": [[1.0], [1.0, 2.0]],
    }
    with pytest.raises(Validation, match=wrong):
        moments.gathered(ray.data.from_arrow(pa.table(made)), columns)


def test_no_rows_and_no_weight_are_told_of(on_ray):
    for rows in ([], [[1.0, 2.0, 0.0]]):
        data = ray.data.from_arrow(pa.table(dict(zip("xyw", np.array(rows).reshape(-1, 3).T, strict=True))))
        with pytest.raises(Validation, match="there are no rows, or none of them weighs anything"):
            moments.gathered(data, Columns(["y"], ["x"], "w"))


def test_a_form_that_is_not_read_is_told_with_those_that_are(on_ray):
    with pytest.raises(Validation, match=r"rows\.txt is in no form that is read here; those are parquet, csv, npy"):
        moments.read("rows.txt")
