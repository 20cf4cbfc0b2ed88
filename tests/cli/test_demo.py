"""`lora demo`, as a user runs it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest

from service.cli.demo import picture
from service.training import digits
from tests.programs import needs
from tests.running import DEADLINE_SECONDS, gone, until


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", "demo", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def output() -> str:
    """What the demo prints to a narrow terminal."""
    ended = run(COLUMNS="60")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def test_it_prints_the_lines_of_the_first_run(output: str) -> None:
    assert "Trainable parameters: 296\nTotal parameters: 946\n" in output
    losses = [float(loss) for loss in re.findall(r"^Epoch \d+/10, Loss: (\d+\.\d{4})$", output, re.MULTILINE)]
    assert len(losses) == 10
    assert losses == sorted(losses, reverse=True)


def test_it_tabulates_what_each_rank_learns(output: str) -> None:
    rows = re.findall(r"│ +(\d) │ +(\d+) │ +[\d.]+% │ +([\d.]+) → ([\d.]+) │ +([\d.]+)% → ([\d.]+)% │", output)
    assert [(int(rank), int(trainable)) for rank, trainable, *_ in rows] == [(1, 74), (2, 148), (4, 296), (8, 592)]
    accuracy = [float(row[5]) for row in rows]
    assert accuracy == sorted(accuracy)
    assert accuracy[2] > 85
    for _, _, first, last, before, after in rows:
        assert float(last) < float(first)
        assert float(before) < float(after)


def test_it_shows_a_digit_and_what_the_adapter_reads(output: str) -> None:
    x, y = digits.load("test")
    assert picture(x[0]) in output
    assert re.search(rf"reads a {y[0]} \(\d+% sure\)\. It is a {y[0]}\.", output)


def test_a_picture_has_a_shade_for_each_grey_value() -> None:
    assert picture(np.zeros(64, dtype=np.float32)) == "\n".join([" " * 16] * 8)
    assert picture(np.ones(64, dtype=np.float32)) == "\n".join(["█" * 16] * 8)


def test_it_ends_with_three_addresses_and_a_line_to_go_on_with(output: str) -> None:
    assert re.findall(r"http://127.0.0.1:8000/(\w+)  ", output) == ["docs", "metrics", "limits"]
    assert output.rstrip().splitlines()[-1].startswith("curl http://127.0.0.1:8000/models ")


def test_with_json_it_prints_what_each_rank_has_learnt() -> None:
    ended = run("--json")
    assert ended.returncode == 0, ended.stderr
    readers = json.loads(ended.stdout)["readers"]
    assert [reader["rank"] for reader in readers] == [1, 2, 4, 8]
    assert all(reader["accuracy_before"] < reader["accuracy_after"] for reader in readers)
    assert {reader["job"]["state"] for reader in readers} == {"succeeded"}
    assert "One digit, sent to /forward" in ended.stderr


def test_keep_leaves_the_service_running_and_its_curl_line_works() -> None:
    needs("curl")
    ended = run("--keep")
    assert ended.returncode == 0, ended.stderr
    (pid,) = re.findall(r"^  kill (\d+)  stop the service$", ended.stdout, re.MULTILINE)
    try:
        command = shlex.split(ended.stdout.rstrip().splitlines()[-1])
        answer = subprocess.run([*command, "-sS"], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
        assert '"outputs":[' in answer.stdout, answer.stderr
    finally:
        os.kill(int(pid), signal.SIGTERM)
    until(lambda: gone(int(pid)))


def test_a_wrong_setting_is_said_once_and_keeps_its_status() -> None:
    ended = run(LORA_WORKERS="none")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "LORA_WORKERS is 'none'" in ended.stderr
