"""The documentation: every block of every page runs, and gives what the page shows."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from docs.__main__ import HERE, PAGES
from tests.programs import needs
from tests.running import Service
from tests.story.pages import NAMED_ID, NOT_HERE, ROOT, Reader, blocks, runs_here

FOLDER = HERE / PAGES
LISTED = sorted(str(page.relative_to(FOLDER)) for page in FOLDER.rglob("*.md"))
FRONT_DOORS = [ROOT / "README.md", ROOT / "README.es.md"]


@pytest.mark.parametrize("page", LISTED)
def test_every_block_of_the_page_runs_and_gives_what_it_shows(
    service: Service, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("curl")
    monkeypatch.chdir(tmp_path)  # where blocks of Python write their files
    Reader(service.url, tmp_path).reads((FOLDER / page).read_text())


def test_every_exception_is_one_that_some_page_needs() -> None:
    spared = [
        text
        for page in [*FRONT_DOORS, *FOLDER.rglob("*.md")]
        for _, text in blocks(page.read_text())
        if not runs_here(text)
    ]
    assert [first for first in NOT_HERE if not any(text.startswith(first) for text in spared)] == []


def test_spared_make_lines_name_what_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target for page in FOLDER.rglob("*.md") for target in re.findall(r"^make ([a-z]+)", page.read_text(), re.M)
    }
    assert named <= targets


def test_docker_lines_name_what_the_compose_file_has() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    lines = [
        shlex.split(line)
        for page in FOLDER.rglob("*.md")
        for _, text in blocks(page.read_text())
        for line in text.replace("\\\n", "").splitlines()
        if "docker compose" in line
    ]
    assert len(lines) > 3
    for words in lines:
        given = [word for word, before in zip(words[1:], words, strict=False) if before == "--profile"]
        assert set(given) <= profiles
        verb = next(word for word in words if word in ("up", "exec", "run"))
        assert verb == "up" or set(words[words.index(verb) :]) & set(services)


def test_the_spanish_quickstart_has_the_blocks_of_the_english_one() -> None:
    english, spanish = (blocks((FOLDER / page).read_text()) for page in ("quickstart.md", "es/quickstart.md"))
    comment = re.compile(r"\s*#.*$", re.MULTILINE)
    assert [(kind, comment.sub("", text)) for kind, text in spanish] == [
        (kind, comment.sub("", text)) for kind, text in english
    ]


@pytest.mark.parametrize("page", [*FRONT_DOORS, *FOLDER.rglob("*.md")], ids=lambda page: page.name)
def test_an_id_that_is_given_a_name_is_that_of_an_answer_which_the_page_has_shown(page: Path) -> None:
    shown = ""
    for language, text in blocks(page.read_text()):
        assert all(found[0].partition("=")[2] in shown for found in NAMED_ID.finditer(text))
        shown += text if language == "json" else ""


def test_no_table_is_broken_by_an_empty_line() -> None:
    pages = [*FRONT_DOORS, *FOLDER.rglob("*.md")]
    assert [page.name for page in pages if re.search(r"^\|.*\|\n\n\|(?!.*\n\| ---)", page.read_text(), re.M)] == []


def test_the_figures_are_those_of_the_readme() -> None:
    rows = [
        set(re.findall(r"^\| .* \|$", text, re.M)) for text in (measured(), (FOLDER / "performance.md").read_text())
    ]
    assert rows[0] == rows[1]


def measured() -> str:
    """The part of the README that has the figures."""
    (found,) = re.findall(r"^## In figures\n(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)
    return str(found)
