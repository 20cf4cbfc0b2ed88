"""What must stay out of the code and the dependencies stays out."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A line that must never be here, and the rule of bandit that finds it.
DANGEROUS = {
    "import pickle; pickle.loads(b'')": "B301",
    "import marshal; marshal.loads(b'')": "B302",
    "import shelve; shelve.open('x')": "B301",
    "import yaml; yaml.load('')": "B506",
    "import torch; torch.load('x')": "B614",
    "eval('1')": "B307",
    "exec('1')": "B102",
    "import subprocess; subprocess.run('ls', shell=True)": "B602",
    "import tempfile; tempfile.mktemp()": "B306",
    "import tarfile; tarfile.open('x').extractall()": "B202",
}


def bandit(*options: str) -> subprocess.CompletedProcess[str]:
    """Run bandit with the settings of the project."""
    command = [sys.executable, "-m", "bandit", "-q", "-c", str(ROOT / "pyproject.toml"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_bandit_is_told_to_find_what_runs_data(tmp_path: Path) -> None:
    for number, line in enumerate(DANGEROUS):
        (tmp_path / f"a{number}.py").write_text(f"{line}\n")
    found = bandit("-r", str(tmp_path), "-f", "custom", "--msg-template", "{relpath} {test_id}").stdout.splitlines()
    said = {tuple(line.rpartition("/")[2].split()) for line in found}
    assert {(f"a{number}.py", rule) for number, rule in enumerate(DANGEROUS.values())} <= said


def test_what_bandit_is_told_to_pass_over_has_a_reason() -> None:
    files = [path for room in ("service", "tools", "docs") for path in (ROOT / room).rglob("*.py")]
    passed = [line for path in files for line in path.read_text().splitlines() if "nosec" in line]
    assert passed
    assert [line for line in passed if not re.search(r"# nosec B\d{3}  # \w", line)] == []


def test_nothing_is_installed_that_parses_forms() -> None:
    assert (find_spec("multipart"), find_spec("python_multipart")) == (None, None)


def test_lint_runs_bandit() -> None:
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert "-m bandit -q -c pyproject.toml -r service tools docs" in lint


def test_an_audit_that_nobody_answers_fails_in_one_line() -> None:
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "PATH": "", "HOME": "/nowhere"}
    asked = subprocess.run(
        [sys.executable, "-m", "tools.audit"], cwd=ROOT, env=nowhere, capture_output=True, text=True, timeout=120
    )
    assert asked.returncode == 2
    assert asked.stderr.startswith("no audit was made, ")
    assert asked.stderr.count("\n") == 1
