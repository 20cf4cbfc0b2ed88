"""The service that all of these tests send things to."""

from collections.abc import Iterator

import pytest

from tests.running import Service
from tests.trust.asking import Names
from tests.trust.ground import ground


@pytest.fixture(scope="module")
def held() -> Iterator[tuple[Service, Names]]:
    """A service that nobody else touches, and what it holds."""
    with ground() as both:
        yield both
