"""What is in a file comes out as it was, in whichever format, and what is wrong is named by its line and column."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.cli import csv_rows, reading
from service.cli.statuses import Refused
from service.cli.writing import WRITERS

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
MATRICES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=FINITE)


def npz(**named: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **named)
    return stream.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows"


@given(x=MATRICES, form=st.sampled_from(sorted(WRITERS)), tell=st.booleans())
def test_what_is_written_is_read_again_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, x: np.ndarray, form: str, tell: bool
) -> None:
    body = WRITERS[form](x)
    assert reading.sniffed(body) == form
    path = tmp_path_factory.mktemp("rows") / "file"
    path.write_bytes(body)
    again = reading.inputs(str(path), form if tell else None)
    assert np.array_equal(again.astype(np.float32), x)


@given(x=MATRICES, classes=st.data())
def test_an_npz_has_its_rows_and_targets(
    tmp_path_factory: pytest.TempPathFactory, x: np.ndarray, classes: st.DataObject
) -> None:
    y = classes.draw(arrays(np.int64, len(x), elements=st.integers(0, 9)))
    path = tmp_path_factory.mktemp("rows") / "file.npz"
    path.write_bytes(npz(x=x, y=y))
    rows = reading.rows(str(path))
    assert np.array_equal(rows.x, x)
    assert np.array_equal(rows.y, y)
    assert rows.weight is None


@given(x=MATRICES, separator=st.sampled_from(csv_rows.SEPARATORS), named=st.booleans(), crlf=st.booleans())
def test_csv_is_read_with_any_separator_with_or_without_names(
    x: np.ndarray, separator: str, named: bool, crlf: bool
) -> None:
    names = [f"c{place}" for place in range(x.shape[1])]
    lines = [separator.join(map(str, row)) for row in ([names] if named else []) + x.tolist()]
    text = ("\r\n" if crlf else "\n").join(["", *lines, ""])
    rows = csv_rows.read(text)
    assert rows.names == (names if named else [])
    assert np.array_equal(rows.numbers.astype(np.float32), x)


def test_the_targets_of_csv_are_columns_by_name_or_number(file: Path) -> None:
    file.write_text("a;label;b\n1;0;2\n3;1;4\n")
    for column in ("label", "2", "-2"):
        rows = reading.rows(str(file), targets=[column])
        assert rows.x.tolist() == [[1, 2], [3, 4]]
        assert rows.y.tolist() == [[0], [1]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"1,2\n3,x\n", "line 2, column 2 of the CSV is 'x', no number"),
        (b"a,b\n1,2\n\n3,\n", "line 4, column 2 (b) of the CSV is '', no number"),
        (b"1,2\n3\n", "line 2 of the CSV has 1 values; the first has 2"),
        (b"", "the CSV has no rows"),
        (b"a,b\n", "the CSV has no rows"),
        (b"\xff\xfe\x00", "it is no text in UTF-8"),
        (b"[[1, 2], [3]]", "the array[1] is 1 long"),
        (b'[[1, "2"]]', "must be a number"),
        (b"[[1, 2", "at byte 5"),
        (b"\x93NUMPY\x01\x00", "cannot be read as npy"),
        (b"PK\x03\x04 and no more", "cannot be read as npz"),
        (npz(a=[1], b=[2]), "has a, b; name the inputs `inputs`"),
        (npz(x=np.array([None])), "allow_pickle=False"),
        (npz(x=np.array(["cat"])), "x is of <U3, and not of numbers"),
        (b'{"inputs": 0.5}', "holds no array"),
        (b"{}", "holds no array"),
    ],
)
def test_what_cannot_be_read_is_named(file: Path, body: bytes, says: str) -> None:
    file.write_bytes(body)
    with pytest.raises(Refused) as refused:
        reading.inputs(str(file))
    assert str(file) in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("body", "targets", "says"),
    [
        (b"1,2\n3,4\n", [], "--target label"),
        (b"1,2\n3,4\n", ["label"], "there is no column 'label'; there are 2, without names"),
        (b"a,b\n3,4\n", ["3"], "there is no column '3'; there are 2, a, b"),
        (b"a,b\n3,4\n", ["--1"], "there is no column '--1'"),
        (b"a,b\n3,4\n", ["²"], "there is no column '²'"),
        (b'{"x": [[1]]}', [], "holds x; rows to train on are arrays x and y"),
        (b"[[1]]", [], "holds one array without a name"),
        (b'{"x": [[1]], "y": [[1]]}', ["y"], "--target names columns of CSV"),
    ],
)
def test_rows_that_are_not_complete_are_refused(file: Path, body: bytes, targets: list[str], says: str) -> None:
    file.write_bytes(body)
    with pytest.raises(Refused) as refused:
        reading.rows(str(file), targets=targets)
    assert says in str(refused.value)


def test_numbers_that_json_has_not_are_words_in_it() -> None:
    assert json.loads(WRITERS["json"](np.array([[np.nan, 1]], np.float32)))["outputs"] == [["NaN", 1.0]]
