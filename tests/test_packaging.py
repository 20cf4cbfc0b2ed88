"""What is shipped: the wheel, the pinned versions, the container image and the Compose file."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, entry_points, requires
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from service.settings import Settings
from tests.deploy import composed

ROOT = Path(__file__).parent.parent
OF_THE_PAGE = [f"api/static/{name}" for name in ("index.html", "style.css", "js/main.js", "vendor/uPlot.LICENSE.md")]
UNWANTED = {"python-multipart": ">=0", "orjson": "<3.11.6", "torch": "<2.10", "starlette": "<1.6"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Project name to version, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The one service of the Compose file that starts without a profile."""
    return composed.services()["lora"]


@pytest.fixture(scope="module")
def image() -> dict[str, str]:
    """The last word of each instruction of the Dockerfile's last stage."""
    text = re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text())
    return dict(re.findall(r"^([A-Z]+) (.+)$", text.rpartition("\nFROM ")[2], re.MULTILINE))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def named(project: dict[str, Any]) -> list[Requirement]:
    """Every requirement of pyproject.toml, whoever needs it."""
    groups = [entry for group in project["dependency-groups"].values() for entry in group if isinstance(entry, str)]
    return [
        Requirement(text)
        for text in [*project["build-system"]["requires"], *project["project"]["dependencies"], *groups]
    ]


def drawn_in(requirements: list[Requirement], seen: set[str]) -> Iterator[str]:
    """The requirements' names, and those of all that they need here in their turn."""
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name not in seen and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            seen.add(name)
            yield name
            with suppress(PackageNotFoundError):  # only who runs the benchmarks has what they need
                yield from drawn_in([Requirement(text) for text in requires(name) or []], seen)


def test_every_dependency_is_pinned_to_one_version(project, pins):
    assert set(drawn_in(named(project), set())) <= set(pins)


def test_the_pinned_versions_are_those_that_are_asked_for(project, pins):
    assert [
        str(need) for need in named(project) if not need.specifier.contains(pins[canonicalize_name(need.name)])
    ] == []


def test_no_version_is_pinned_that_must_stay_out(pins):
    assert [name for name, unwanted in UNWANTED.items() if name in pins and pins[name] in SpecifierSet(unwanted)] == []


def test_what_is_to_be_installed_by_what_pages_and_errors_say_is_here_and_not_on_an_index(project):
    files = [file for kind in ("*.md", "docs/pages/**/*.md", "service/**/*.py") for file in ROOT.glob(kind)]
    said = "".join(file.read_text() for file in files)
    named = {name for names in re.findall(r"'\.\[([\w,]+)\]'", said) for name in names.split(",")}
    assert named == set(project["project"]["optional-dependencies"])
    assert re.findall(r"lora-service\[", said) == []


def test_the_lora_command_is_a_typer_app():
    (command,) = entry_points(group="console_scripts", name="lora")
    assert isinstance(command.load(), typer.Typer)


@pytest.mark.parametrize("name", ["py.typed", "training/digits.csv.gz", "training/digits.LICENSE.md", *OF_THE_PAGE])
def test_the_wheel_carries(wheel, name):
    assert f"service/{name}" in wheel


def test_the_wheel_carries_every_licence_in_its_metadata(wheel, project):
    licences = {name.partition(".dist-info/licenses/")[2] for name in wheel}
    assert set(project["project"]["license-files"]) <= licences


def test_the_wheel_carries_the_service_alone(wheel):
    assert {name.split("/")[0].partition("-")[0] for name in wheel} == {"service", "lora_service"}


def test_the_image_starts_and_checks_the_service_without_a_shell(image):
    assert json.loads(image["CMD"])[:2] == ["lora", "serve"]
    assert json.loads(image["HEALTHCHECK"].partition(" CMD ")[2])[0] == "python"


def test_the_image_runs_as_an_unprivileged_user(image):
    assert image["USER"] == "10001:10001"


def test_the_compose_file_is_valid():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, "docker-compose.yml"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_compose_publishes_the_port_on_loopback_only(compose):
    assert compose["ports"] == ["127.0.0.1:8000:8000"]


def test_compose_gives_away_no_privilege(compose):
    assert compose["read_only"]
    assert compose["cap_drop"] == ["ALL"]
    assert compose["security_opt"] == ["no-new-privileges:true"]


def test_compose_asks_for_health_as_the_image_does(compose, image):
    assert compose["healthcheck"]["test"] == ["CMD", *json.loads(image["HEALTHCHECK"].partition(" CMD ")[2])]


def test_compose_sets_only_settings_that_there_are(compose):
    assert set(compose["environment"]) <= {f"LORA_{name}".upper() for name in Settings.model_fields}


def test_compose_waits_longer_than_the_service_takes_to_stop(compose):
    assert int(compose["stop_grace_period"].removesuffix("s")) > compose["environment"]["LORA_GRACE_SECONDS"]
