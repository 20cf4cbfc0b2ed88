"""Both front doors: every block of theirs runs, and answers what they show."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.cli.app import COMMANDS
from service.cli.serve import READY
from service.models.sql import SqlStore
from service.settings import Settings
from tests.programs import needs
from tests.running import DEADLINE_SECONDS, Service
from tests.story import pages
from tests.story.pages import ROOT, Reader, run

PAGES = ["README.md", "README.es.md"]
MEASURED = re.compile(r"^## (?:In figures|En cifras)\n(.*?)^## ", re.MULTILINE | re.DOTALL)

NUMBER = r"\d+(?:[.,]\d+)*"
SPANISH_NUMBERS = str.maketrans(",.", ".,")

page = pytest.mark.parametrize("page", PAGES)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each block, in order."""
    return pages.blocks((ROOT / page).read_text())


def commands(page: str, first_word: str) -> list[str]:
    """The lines of the page's shell blocks that begin with a word."""
    return [
        line.partition("#")[0].strip()
        for language, text in blocks(page)
        if language == "bash"
        for line in text.splitlines()
        if line.startswith(first_word)
    ]


@page
def test_every_block_runs_and_answers_what_the_page_shows(
    service: Service, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("curl")
    monkeypatch.chdir(tmp_path)  # where they write their files
    printed = Reader(service.url, tmp_path).reads((ROOT / page).read_text())
    assert "(3, 10) (4, 64)" in printed
    assert "8 (10, 64)" in printed


@page
def test_the_service_starts_as_the_page_says(page: str) -> None:
    lines = commands(page, "lora serve")
    assert lines == ["lora serve --port 8000"]
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
def test_the_commands_of_the_page_do_what_they_say(service: Service, page: str, tmp_path: Path) -> None:
    (script,) = (text for _, text in blocks(page) if "lora create" in text)
    (tmp_path / "x.csv").write_text(f"{','.join(['0.5'] * 64)}\n" * 3)
    printed = run(f"exec 2>&1\n{script}", tmp_path, service.url)
    assert re.search(r"^epoch 20/20  loss 0\.", printed, re.MULTILINE)
    assert len(re.findall(r"^[1-4]\tmdl_.*\trank=[1248]\t", printed, re.MULTILINE)) == 4
    assert re.search(r"^mdl_\w+ is deleted$", printed, re.MULTILINE)
    assert (tmp_path / "scores.npy").exists()
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@page
def test_the_commands_of_the_table_are_all_there_are(page: str) -> None:
    rows = re.findall(r"^\| `lora ([\w-]+(?:`, `[\w-]+)*)` \|", (ROOT / page).read_text(), re.MULTILINE)
    named = [name for row in rows for name in row.split("`, `")]
    assert sorted(named) == sorted(name for commands in COMMANDS.values() for name in commands)


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
    assert set(profile) < set(services["db"]["profiles"])
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
