"""A reader of a page who types every block of it, in order, and compares what comes with what the page shows."""

import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import Client
from tests.running import free_port

# Blocks that do not run in a test, by their first words, and why; what is said of them is checked in another way.
NOT_HERE = {
    "make demo": "sets up an environment of its own; tests/cli/test_demo.py runs what it runs",
    "source .venv/bin/activate": "there may be no .venv here; what runs the tests stands for it",
    "pip install -c constraints.txt": "would install; tests/test_packaging.py builds the wheel and knows the extras",
    "make serve": "does not end; the tests' own service stands for it",
    "make docs": "sets up an environment of its own; tests/docs builds the site",
    "lora serve --port 8000": "does not end; the page's test starts it, and the tests' own service stands for it",
    "MODEL=$(lora create --in 64 --out 10 --rank 4 --quiet)": "needs a file; the page's test makes one",
    "docker compose": "there may be no Docker; the Compose file is checked against its schema",
    "export LORA_API_KEYS=$(openssl": "there may be no Docker; tests/deploy says what it hands on",
    "export RAY_AUTH_TOKEN=": "there may be no Docker; tests/deploy says what it hands on",
    "export LORA_DATABASE_URL=sqlite:///lora.db\nlora backup": "needs a database; the page's test makes one",
    "LORA_DATABASE_URL=postgresql+psycopg://lora:lora@db": "there may be no Docker",
    "export LORA_DATABASE_URL=postgresql": "needs a PostgreSQL; tests/api/test_replicas.py has servers on one",
    "LORA_RUNNER=ray": "needs a cluster; tests/cluster has servers on one",
    "lora gather": "needs rows in a store; tests/cluster/test_gather.py has some in a file",
    "from service.cluster import moments": "needs rows in a store; tests/cluster/test_moments.py has some in files",
    ".venv/bin/python examples": "tests/test_examples.py runs them",
}

ROOT = Path(__file__).parents[2]
PUBLISHED, ANOTHER_PORT = "127.0.0.1:8000", "8001"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ID = re.compile(r"\b(mdl|job|dat|swp|base)_[0-9A-Za-z]{26,64}\b")
DRAWN_ID = re.compile(r"\b(mdl|job|dat|swp)_[0-9A-Z]{26}\b")  # that of a base is always that of its content
# A line that gives an id of an earlier answer a name: the reader puts in the one that came.
NAMED_ID = re.compile(rf"^(\w+)={ID.pattern}", re.MULTILINE)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
CHANGES = {"id", "model_id", "created_at", "updated_at", "started_at", "finished_at", "duration_seconds", "request_id"}
AND_MORE = "…"  # a shown object that has this name for a member shows some of its members


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, text) of each block of a page, in order."""
    return BLOCK.findall(text)


def runs_here(text: str) -> bool:
    """Whether a block of code can be run in a test."""
    return not text.startswith(tuple(NOT_HERE))


@dataclass
class Reader:
    """Someone with a service, a folder, a shell and a Python, which remember what was typed before."""

    url: str
    folder: Path
    python: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)  # the newest of each kind
    names: dict[str, str] = field(default_factory=dict)  # what the shell's lines have called them
    port: int = field(default_factory=free_port)  # for a service that the page itself starts

    def reads(self, page: str) -> str:
        """What all blocks of a page print; what the page shows after one of them must be what that one printed."""
        printed: list[str] = []
        for language, text in blocks(page):
            if language in ("bash", "python"):
                printed.append(self.types(language, text) if runs_here(text) else "")
            elif language == "yaml":
                assert any(text in file.read_text() for file in (ROOT / "deploy").rglob("*.yml")), text
            else:
                assert_shown(printed[-1], language, text)
        self.leaves()
        return "".join(printed)

    def leaves(self) -> None:
        """End the Python as a reader does, which closes what it has opened."""
        for value in self.python.values():
            if isinstance(value, httpx.Client | Client):
                value.close()

    def types(self, language: str, text: str) -> str:
        """What a block prints; it must succeed."""
        text = text.replace(PUBLISHED, self.url.partition("://")[2]).replace(ANOTHER_PORT, str(self.port))
        printed = self._in_bash(text) if language == "bash" else self._in_python(text)
        self.ids |= {found[1]: found[0] for found in ID.finditer(printed)}
        return printed

    def _in_bash(self, text: str) -> str:
        script = NAMED_ID.sub(self._call, text)
        return run("".join(f"{name}={value}\n" for name, value in self.names.items()) + script, self.folder, self.url)

    def _call(self, line: re.Match[str]) -> str:
        name, prefix = line.groups()
        self.names[name] = self.ids[prefix]
        return f"{name}={self.ids[prefix]}"

    def _in_python(self, text: str) -> str:
        with redirect_stdout(StringIO()) as printed:
            exec(compile(text, "<page>", "exec"), self.python)
        return printed.getvalue()


def run(script: str, folder: Path = ROOT, url: str = "") -> str:
    """What a shell prints for a script, whose `lora` finds a service; it must succeed without a word of complaint."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euc", script],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
        env={**os.environ, "PATH": path, **({"LORA_URL": url} if url else {})},
    )
    assert (ended.returncode, ended.stderr) == (0, ""), script
    return ended.stdout


def assert_shown(printed: str, language: str, shown: str) -> None:
    """What came is what the page shows, but for what differs from run to run."""
    if language == "json":
        assert_like(json.loads(printed), json.loads(shown))
    else:
        assert_reads_like(printed, shown)


def assert_like(actual: Any, shown: Any, name: str = "") -> None:
    """The same, but for what differs from run to run; numbers within a hundredth."""
    if name in CHANGES:
        assert type(actual) is type(shown)
    elif isinstance(shown, dict):
        members = [key for key in shown if key != AND_MORE]
        assert [key for key in actual if AND_MORE not in shown or key in members] == members
        for key in members:
            assert_like(actual[key], shown[key], key)
    elif isinstance(shown, list):
        assert len(actual) == len(shown)
        for one, other in zip(actual, shown, strict=True):
            assert_like(one, other)
    elif isinstance(shown, float):
        # Hundreds of steps in float32: another processor rounds some of them another way.
        assert actual == pytest.approx(shown, rel=1e-2, abs=1e-2)
    elif isinstance(shown, str):
        assert DRAWN_ID.sub(r"\1", actual) == DRAWN_ID.sub(r"\1", shown)
    else:
        assert actual == shown


def assert_reads_like(printed: str, shown: str) -> None:
    """The same words between numbers that are the same within a twentieth."""
    one, other = (DRAWN_ID.sub(r"\1", text).rstrip() for text in (printed, shown))
    assert NUMBER.sub("#", one) == NUMBER.sub("#", other)
    for actual, expected in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True):
        assert float(actual) == pytest.approx(float(expected), rel=5e-2, abs=1e-6)
