"""Files of the repository that pages link to, as pages of the site; elsewhere the same links lead to the files."""

import os
import re
from pathlib import Path

LINK = re.compile(r"(?<=\]\()(?:\.\./)+[^)#\s]+(?=[)#])")
FOLDER = "source"
LANGUAGES = {".py": "python", ".yml": "yaml", ".json": "json", ".md": "markdown"}


def bring(pages: Path, home: Path) -> list[str]:
    """Write a page for each file that a copy of the pages links to, and lead the links there; what leads nowhere.

    Args:
        pages: the copy, which is changed.
        home: where the pages are at home in the repository, from which their links start.
    """
    astray = []
    for page in list(pages.rglob("*.md")):
        place = page.relative_to(pages).parent
        text = page.read_text()
        for target in set(LINK.findall(text)):
            file = Path(os.path.normpath(home / place / target))
            if file.is_relative_to(home):
                continue  # a page, of which the builder knows
            if not file.is_file():
                astray.append(f"{page.relative_to(pages)} links to {target}, and there is no such file")
                continue
            written = _written(pages, file.relative_to(home.parents[1]), file.read_text())
            text = text.replace(f"]({target}", f"]({os.path.relpath(written, pages / place)}")
        page.write_text(text)
    return astray


def _written(pages: Path, name: Path, text: str) -> Path:
    """The page of a file."""
    page = pages / FOLDER / f"{name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_as_page(name, text))
    return page


def _as_page(name: Path, text: str) -> str:
    """A file as it is, under its name."""
    return f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n````{LANGUAGES.get(name.suffix, 'text')}\n{text}````\n"
