"""What the pages name as a proof is a test that exists."""

import ast
import re

import pytest

from docs.__main__ import HERE, PAGES
from tests.story.pages import ROOT

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PROOF = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
NAMED = [
    (str(page.relative_to(HERE / PAGES)), *found)
    for page in sorted((HERE / PAGES).rglob("*.md"))
    for found in PROOF.findall(page.read_text())
]


def test_there_are_proofs() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("page", "file", "name"), NAMED)
def test_a_proof_is_a_test(page: str, file: str, name: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {each.name for each in ast.walk(tree) if isinstance(each, FUNCTIONS)}, page
