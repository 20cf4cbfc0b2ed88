"""Build the site: `python -m docs [FOLDER]` writes it to a folder, `site` by default. It needs no network."""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs import reference, sources, tables

HERE = Path(__file__).parent
PAGES, CONFIG = "pages", "zensical.toml"


def build(target: Path, source: Path = HERE) -> int:
    """Build the pages of a folder into another, which is replaced; the exit status.

    A page that the navigation lacks, one that it names in vain, and a link that leads nowhere end it with 1.
    """
    with tempfile.TemporaryDirectory() as place:
        work = Path(place, "docs")
        shutil.copytree(source, work, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        for name, text in {**reference.pages(), **tables.pages()}.items():
            page = work / PAGES / name
            page.parent.mkdir(exist_ok=True)
            page.write_text(text)
        wrong = [*_astray(work), *sources.bring(work / PAGES, HERE / PAGES)]
        print(*wrong, sep="\n", end="\n" if wrong else "")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(work / CONFIG)]
        built = subprocess.run(command, stderr=subprocess.DEVNULL)  # nosec B603  # every word of it stands here
        if built.returncode or wrong:
            return 1
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(work / "site", target)
    print(f"{target / 'index.html'} is the first page")
    return 0


def _astray(work: Path) -> Iterator[str]:
    """What the builder takes without a word: pages that nobody finds, and places that have no page."""
    named = set(_named(tomllib.loads((work / CONFIG).read_text())["project"]["nav"]))
    there = {str(page.relative_to(work / PAGES)) for page in work.glob(f"{PAGES}/**/*.md")}
    yield from (f"{page} is not in the navigation of {CONFIG}" for page in sorted(there - named))
    yield from (f"{page} is in the navigation of {CONFIG}, and is no page" for page in sorted(named - there))


def _named(nav: Any) -> Iterator[str]:
    """The pages of a navigation, whose entries are pages, or titles of pages or of lists of entries."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(entry)


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1] if len(sys.argv) > 1 else "site")))
