"""The page of faults names tests that there are, and modules that run."""

import re
from importlib.util import find_spec
from pathlib import Path

from tests.docs.test_proofs import PROOF

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/pages/operations/faults.md").read_text()
FAULTS = [*range(1, 29)]


def test_every_fault_has_its_row_in_order() -> None:
    assert [int(number) for number in re.findall(r"^\| F(\d+) ", PAGE, re.M)] == FAULTS


def test_every_row_names_a_test() -> None:  # and each that is named is there, as is tested of all pages
    for row in re.findall(r"^\| F\d+ .*\|$", PAGE, re.M):
        assert PROOF.search(row), row


def test_every_command_starts_a_module_that_is_there_or_a_target_of_make() -> None:
    modules = re.findall(r"`python -m ([\w.]+) \d+`", PAGE)
    assert len(modules) == 6
    assert [module for module in modules if find_spec(module) is None] == []
    targets = re.findall(r"^(\w+):", (TESTS.parent / "Makefile").read_text(), re.M)
    assert set(re.findall(r"`make (\w+)", PAGE)) <= {*targets}
