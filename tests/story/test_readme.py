"""Both front doors: every block of theirs runs, and answers what they show."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli.serve import READY
from service.models.sql import SqlStore
from service.settings import Settings
from tests.programs import needs
from tests.running import DEADLINE_SECONDS, Service

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "README.es.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"^## (?:In figures|En cifras)\n(.*?)^## ", re.MULTILINE | re.DOTALL)
PUBLISHED = "http://127.0.0.1:8000"
CHANGES = {"id", "model_id", "created_at", "updated_at", "started_at", "finished_at", "duration_seconds", "request_id"}

NUMBER = r"\d+(?:[.,]\d+)*"
SPANISH_NUMBERS = str.maketrans(",.", ".,")

page = pytest.mark.parametrize("page", PAGES)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each block, in order."""
    return BLOCK.findall((ROOT / page).read_text())


def commands(page: str, first_word: str) -> list[str]:
    """The lines of the page's shell blocks that begin with a word."""
    return [
        line.partition("#")[0].strip()
        for language, text in blocks(page)
        if language == "bash"
        for line in text.splitlines()
        if line.startswith(first_word)
    ]


def run(script: str, folder: Path = ROOT) -> str:
    """What a shell prints for a script; it must succeed without a word on the error output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euc", script],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
        env={**os.environ, "PATH": path},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def assert_like(actual: Any, shown: Any, name: str = "") -> None:
    """The same, but for what differs from run to run; numbers within a hundredth."""
    if name in CHANGES:
        assert type(actual) is type(shown)
    elif isinstance(shown, dict):
        assert list(actual) == list(shown)
        for key, value in shown.items():
            assert_like(actual[key], value, key)
    elif isinstance(shown, list):
        assert len(actual) == len(shown)
        for one, other in zip(actual, shown, strict=True):
            assert_like(one, other)
    elif isinstance(shown, float):
        # Hundreds of steps in float32: another processor rounds some of them another way.
        assert actual == pytest.approx(shown, rel=1e-2, abs=1e-2)
    else:
        assert actual == shown


@page
def test_every_curl_answers_what_the_page_shows(service: Service, page: str) -> None:
    needs("curl")
    listed = blocks(page)
    model_id = ""
    compared = 0
    for (language, text), (_, shown) in zip(listed, [*listed[1:], ("", "")], strict=True):
        if language != "bash" or "curl" not in text:
            continue
        script = re.sub(r"^MODEL=\S+", "", text, flags=re.MULTILINE).replace(PUBLISHED, service.url)
        answer = json.loads(run(f"MODEL={model_id}\n{script}"))
        assert_like(answer, json.loads(shown))
        if str(answer.get("id", "")).startswith("mdl_"):
            model_id = answer["id"]
        compared += 1
    assert compared == 5


@page
def test_every_python_block_runs(
    service: Service,
    page: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where they write their files
    code = [text for language, text in blocks(page) if language == "python"]
    assert code
    for text in code:
        exec(compile(text.replace(PUBLISHED, service.url), page, "exec"), {})
    printed = capsys.readouterr().out
    assert "(3, 10) (4, 64)" in printed
    assert "8 (10, 64)" in printed


@page
def test_every_lora_line_starts_what_it_says(page: str) -> None:
    lines = commands(page, "lora ")
    assert lines == ["lora serve --port 8000", "lora backup monday.db"]
    lora = shutil.which("lora", path=str(Path(sys.executable).parent))
    assert lora, "the console script is installed beside the interpreter"
    command = [lora, *lines[0].replace("8000", "0").split()[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any(text.startswith(READY) for text in process.stdout)
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
        finally:
            process.kill()


@page
def test_the_backup_of_the_page_is_restored_as_it_says(page: str, tmp_path: Path) -> None:
    SqlStore(f"sqlite:///{tmp_path}/lora.db").close()
    (script,) = (text for _, text in blocks(page) if "lora backup" in text)
    said = ["monday.db holds all of sqlite:///lora.db", "sqlite:///new.db holds all of monday.db"]
    assert run(script, tmp_path).splitlines() == said


@page
def test_make_and_docker_lines_name_what_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    text = (ROOT / page).read_text()
    assert {"demo", "test"} <= set(re.findall(r"`?make ([a-z]+)", text)) <= targets
    assert commands(page, "docker") == ["docker compose up"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services["lora"]["ports"] == ["127.0.0.1:8000:8000"]
    profile, url = (
        re.findall(r"--profile (\w+)", text),
        re.findall(r"^LORA_DATABASE_URL=(postgres\S+) ", text, re.MULTILINE),
    )
    assert services["db"]["profiles"] == profile
    user = services["db"]["environment"]
    assert url == [f"postgresql+psycopg://{user['POSTGRES_USER']}:{user['POSTGRES_PASSWORD']}@db/lora"]


@page
def test_every_setting_stands_in_the_table_with_its_default(page: str) -> None:
    rows = re.findall(r"^\| (`LORA_.+?) \| (.+?) \|", (ROOT / page).read_text(), re.MULTILINE)
    shown: dict[str, str] = {}
    for names, defaults in rows:
        variables, values = re.findall(r"`(\w+)`", names), re.findall(r"`([^`]+)`", defaults)
        shown |= dict(zip(variables, values or [""] * len(variables), strict=True))
    assert set(shown) == {f"LORA_{name}".upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if field.default_factory is None:
            assert shown[f"LORA_{name}".upper()] == ("" if field.default is None else str(field.default))


def test_every_linked_file_exists() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page}: {target}"


def test_the_spanish_page_has_the_blocks_and_figures_of_the_english_one() -> None:
    english, spanish = (blocks(page) for page in PAGES)
    strip = re.compile(r"\s+#.*$", re.MULTILINE)
    assert [(language, strip.sub("", text)) for language, text in spanish] == [
        (language, strip.sub("", text)) for language, text in english
    ]
    (in_english,), (in_spanish,) = (MEASURED.findall((ROOT / page).read_text()) for page in PAGES)
    figures = re.findall(NUMBER, in_english)
    assert re.findall(NUMBER, in_spanish.translate(SPANISH_NUMBERS)) == figures
    assert len(figures) > 10
