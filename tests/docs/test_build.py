"""The site: built strictly, without anything from elsewhere, and with all that the service tells of itself."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from docs.__main__ import HERE, build
from docs.reference import document
from service.api.routes.limits import FIXED
from service.errors import kinds
from service.settings import Settings

# What a browser fetches by itself, as against what a reader may click on.
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("object", "data")}
LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
# Marks of what the builder's script would fetch from a CDN when it meets them.
FETCHING = ("mermaid", "glightbox", "arithmatex", "pyodide")


class Loads(HTMLParser):
    """The addresses that a page loads, and the classes of its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.classes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.classes |= set((given.get("class") or "").split())
        self.addresses += [str(given[name]) for at, name in LOADED if at == tag and name in given]
        if tag == "link" and set((given.get("rel") or "").split()) & LOADED_LINKS:
            self.addresses.append(str(given["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("built") / "site"
    assert build(folder) == 0
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what the site is built from."""
    return Path(shutil.copytree(HERE, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__")))


def pages(site: Path) -> Iterator[tuple[str, str]]:
    for page in site.rglob("*.html"):
        yield str(page.relative_to(site)), page.read_text()


def outside(address: str) -> bool:
    return re.match(r"(?:[a-z]+:)?//", address) is not None


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {name: Loads(text) for name, text in pages(site)}
    assert len(loaded) > 10
    assert [(name, address) for name, page in loaded.items() for address in page.addresses if outside(address)] == []
    assert [(name, mark) for name, page in loaded.items() for mark in FETCHING if mark in page.classes] == []


def test_no_style_loads_anything_from_elsewhere(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        addresses = re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", style.read_text())
        assert [address for address in addresses if outside(address)] == []


def test_a_link_to_code_leads_to_its_page(site: Path) -> None:
    page = site / "concepts/lora.html"
    (link,) = set(re.findall(r'href="([^"]*layer\.py[^"]*)"', page.read_text()))
    assert "LoRALinear" in (page.parent / link).read_text()


def test_every_page_can_be_searched_for(site: Path) -> None:
    assert "adapter" in (site / "search.js").read_text()


def test_every_route_has_its_place(site: Path) -> None:
    text = "".join(text for name, text in pages(site) if name.startswith("reference/"))
    operations: list[dict[str, Any]] = [
        operation for methods in document()["paths"].values() for operation in methods.values()
    ]
    assert [each["operationId"] for each in operations if f'id="{each["operationId"]}"' not in text] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("problems", [f'id="{kind.slug()}"' for kind in kinds()]),
        ("settings", [f"LORA_{name.upper()}<" for name in Settings.model_fields]),
        ("limits", [f">{name}<" for name in FIXED]),
    ],
)
def test_every_problem_setting_and_limit_has_its_place(site: Path, page: str, names: list[str]) -> None:
    text = (site / "reference" / f"{page}.html").read_text()
    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize("link", ["nowhere.md", "quickstart.md#nowhere", "../../service/nowhere.py"])
def test_a_link_that_leads_nowhere_ends_the_build(source: Path, tmp_path: Path, link: str) -> None:
    (source / "pages/index.md").write_text(f"# Home\n\n[nowhere]({link})\n")
    assert build(tmp_path / "site", source) == 1
    assert not (tmp_path / "site").exists()


def test_a_page_that_nobody_finds_ends_the_build(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (source / "pages/lost.md").write_text("# Lost\n")
    (source / "pages/quickstart.md").unlink()
    assert build(tmp_path / "site", source) == 1
    said = capfd.readouterr().out
    assert "lost.md is not in the navigation of zensical.toml" in said
    assert "quickstart.md is in the navigation of zensical.toml, and is no page" in said
