"""Rows of files become a data set, which trainings name."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.terminal import done, lora
from tests.running import Service


def table(path: Path, rows: int) -> Path:
    """A file of CSV whose last column is twice the first."""
    path.write_text("a,b,wanted\n" + "".join(f"{n},{n % 3},{2 * n}\n" for n in range(rows)))
    return path


def test_the_rows_of_files_become_one_data_set_that_is_trained_on(service: Service, tmp_path: Path) -> None:
    files = [table(tmp_path / f"{rows}.csv", rows) for rows in (5, 7)]
    made = json.loads(done("upload", *files, "--target", "wanted", "--json", url=service.url))
    assert (made["n_samples"], made["in_features"], made["keep_rows"]) == (12, 2, True)
    model = done("create", "--in", 2, "--out", 1, "--rank", 1, "-q", url=service.url)
    assert lora("train", model, "--data", made["id"], "--epochs", 1, "--follow", url=service.url).exit_code == 0


def test_of_moments_no_rows_are_kept_and_a_pipe_is_a_file(service: Service, tmp_path: Path) -> None:
    given = table(tmp_path / "rows.csv", 6).read_bytes()
    words = ("upload", "-", "--format", "csv", "--target", "wanted", "--moments", "-q")
    dataset = done(*words, url=service.url, given=given)
    assert service.http.get(f"/datasets/{dataset}").json()["keep_rows"] is False


def test_classes_are_told_from_numbers(service: Service, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.ones((4, 2), np.float32), y=np.arange(4.0))
    made = [
        json.loads(done("upload", tmp_path / "rows.npz", *words, "--json", url=service.url))
        for words in ((), ("--classes",))
    ]
    assert [each["targets"] for each in made] == ["numbers", "classes"]


def test_a_file_that_does_not_fit_the_first_is_refused_and_what_there_is_is_named(
    service: Service, tmp_path: Path
) -> None:
    np.savez(tmp_path / "other.npz", x=np.ones((4, 3), np.float32), y=np.ones((4, 1), np.float32))
    ended = lora("upload", table(tmp_path / "a.csv", 4), tmp_path / "other.npz", "--target", "wanted", url=service.url)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "has 4 rows of them; `lora rm dat_" in ended.stderr


@pytest.mark.parametrize(("x", "y"), [((4, 2), (3, 1)), ((0, 2), (0, 1))])
def test_rows_that_are_none_are_refused_before_there_is_a_data_set(
    service: Service, tmp_path: Path, x: tuple[int, int], y: tuple[int, int]
) -> None:
    np.savez(tmp_path / "rows.npz", x=np.ones(x, np.float32), y=np.ones(y, np.float32))
    before = done("datasets", "-q", url=service.url)
    ended = lora("upload", tmp_path / "rows.npz", url=service.url)
    assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert done("datasets", "-q", url=service.url) == before
