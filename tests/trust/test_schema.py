"""The service is what its OpenAPI page says, whatever is asked of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trust.schema import ask, bounded

# Whose schemas have the most edges, or whose answers last: `make fuzz` has them too.
LONG = ["/models/{model_id}/train", "/sweeps", "/events", "/jobs/{job_id}/events", "/models/{model_id}/rank-profile"]
SECONDS = 240
SEED = "20"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with bounded() as (_, at):
        yield at


def must_hold(url: str, folder: Path, *options: str) -> None:
    """Nothing is found; what was, is the message."""
    said = folder / "said.txt"
    with said.open("w") as out:
        status = ask(url, "--seed", SEED, *options, out=out, seconds=SECONDS)
    assert status == 0, said.read_text()
    assert "No issues found" in said.read_text()


def test_random_requests_and_chains_of_them_are_answered_as_the_page_says(url: str, tmp_path: Path) -> None:
    must_hold(url, tmp_path, "--phases", "fuzzing,stateful", "--max-examples", "2")


def test_requests_at_the_edges_of_their_schemas_are_answered_as_the_page_says(url: str, tmp_path: Path) -> None:
    without = [word for path in LONG for word in ("--exclude-path", path)]
    must_hold(url, tmp_path, "--phases", "coverage", *without)
