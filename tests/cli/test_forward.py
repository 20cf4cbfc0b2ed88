"""Inputs in any format give the outputs that the service gives, on the screen or in a file of any format."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from service.cli.reading import inputs
from tests.cli.terminal import done, lora, on_terminal
from tests.running import Service

X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def npy(x: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, x)
    return stream.getvalue()


FILES = {
    "npy": npy(X),
    "csv": "".join(",".join(map(str, row)) + "\n" for row in X).encode(),
    "json": json.dumps({"inputs": X.tolist()}).encode(),
    "safetensors": save({"inputs": X}),
}


@pytest.fixture
def model(service: Service) -> str:
    return done("create", "--in", 4, "--out", 3, "--rank", 2, "--init", "normal", "-q", url=service.url)


@pytest.fixture
def expected(service: Service, model: str) -> np.ndarray:
    answer = service.http.post(f"/models/{model}/forward", json={"inputs": X.tolist()})
    return np.array(answer.json()["outputs"])


@pytest.mark.parametrize("form", FILES)
def test_inputs_come_from_the_standard_input_in_any_format(
    service: Service, model: str, expected: np.ndarray, form: str
) -> None:
    for words in ((), ("--format", form)):
        printed = done("forward", model, "-", *words, url=service.url, given=FILES[form])
        rows = [[float(x) for x in line.split("\t")] for line in printed.splitlines()]
        assert np.array(rows) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("form", ["npy", "csv", "safetensors", "json"])
def test_outputs_go_to_a_file_of_the_format_that_its_name_ends_with(
    service: Service, model: str, expected: np.ndarray, tmp_path: Path, form: str
) -> None:
    (tmp_path / "x").write_bytes(FILES["csv"])
    out = tmp_path / f"y.{form}"
    told = json.loads(done("forward", model, tmp_path / "x", "-o", out, "--json", url=service.url))
    assert told == {"file": str(out), "model_id": model, "shape": [5, 3]}
    assert inputs(str(out)) == pytest.approx(expected, abs=1e-5)
    if form == "safetensors":
        assert set(load_file(out)) == {"outputs"}


def test_a_format_alone_writes_to_the_standard_output(service: Service, model: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(FILES["npy"])
    written = json.loads(done("forward", model, tmp_path / "x.npy", "--to", "json", url=service.url))
    assert written["shape"] == [5, 3]


def test_outputs_of_one_model_are_the_inputs_of_the_next(service: Service, model: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(FILES["npy"])
    piped = lora("forward", model, tmp_path / "x.npy", "-o", "-", url=service.url)
    following = done("create", "--in", 3, "--out", 2, "--rank", 1, "-q", url=service.url)
    outputs = json.loads(done("forward", following, "-", "--json", url=service.url, given=piped.stdout_bytes))
    assert (outputs["model_id"], outputs["shape"]) == (following, [5, 2])
    assert np.array(outputs["outputs"]).shape == (5, 2)


def test_an_earlier_version_can_be_run(service: Service, model: str, expected: np.ndarray, tmp_path: Path) -> None:
    done("train", model, "--epochs", 3, "--follow", url=service.url)
    (tmp_path / "x.npy").write_bytes(FILES["npy"])
    words = ("forward", model, tmp_path / "x.npy", "--json")
    now = np.array(json.loads(done(*words, url=service.url))["outputs"])
    then = np.array(json.loads(done(*words, "--version", 0, url=service.url))["outputs"])
    assert then == pytest.approx(expected, abs=1e-5)
    assert now != pytest.approx(expected, abs=1e-5)
    assert lora(*words, "--version", 99, url=service.url).exit_code == 3


def test_a_terminal_shows_the_first_of_many_outputs(service: Service, model: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(npy(np.zeros((100, 4), np.float32)))
    with on_terminal("forward", model, tmp_path / "x.npy", LORA_URL=service.url) as terminal:
        assert terminal.ended() == 0
    assert "of 100 × 3 outputs; -o FILE writes all" in terminal.seen
    assert len(terminal.seen.splitlines()) < 25


@pytest.mark.parametrize(
    ("words", "given", "says"),
    [
        (("-",), b"1,2\n", "last dimension must be in_features = 4"),
        (("-",), b"1,2,3,x\n", "line 1, column 4"),
        (("-", "-o", "y.txt"), b"1,2,3,4\n", "those are npy, csv, safetensors, json"),
        (("nowhere.csv",), b"", "nowhere.csv: No such file or directory"),
        (("-", "--format", "xls"), b"", "'xls' is no format"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(
    service: Service, model: str, words: tuple[str, ...], given: bytes, says: str
) -> None:
    ended = lora("forward", model, *words, url=service.url, given=given)
    assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert says in ended.stderr
