"""One cluster for all tests that leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import Nodes, nodes


@pytest.fixture(scope="session")
def cluster() -> Iterator[Nodes]:
    """Two nodes with one CPU each."""
    with nodes(2) as two:
        yield two
