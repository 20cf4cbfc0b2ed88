"""The first ten minutes go as the README promises, and take less than ten."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.programs import needs
from tests.story.journey import ROOT, Walk, a_page, spend


def test_a_new_user_sees_all_of_it_work_within_ten_minutes(tmp_path: Path) -> None:
    for program in ("make", "git", "chromium"):
        needs(program)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    # The environment of the tests stands for the one that `make` would set up.
    as_set_up = ("make", "--old-file", ".venv/runtime", f"PYTHON={sys.executable}")
    with a_page() as page:
        took = spend(Walk(tmp_path, page, Path(sys.executable), as_set_up))
    assert sum(took.values()) < 600
