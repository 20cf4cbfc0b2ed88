"""What tests are given: one service for all that leave it as they found it, clients to it, and a PostgreSQL."""

import os
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import settings

from tests.postgres import postgres
from tests.running import Service, in_thread

for _name in [name for name in os.environ if name.upper().startswith("LORA_")]:
    del os.environ[_name]  # the settings of whoever runs the tests

# An example may take its time, here as on CI, for the cores are shared.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """A service with one worker, shared by the tests of the whole run."""
    with in_thread() as running:
        running.wait_for_workers()
        yield running


@pytest.fixture
def http(service: Service) -> httpx.Client:
    """An HTTP client of the shared service."""
    return service.http


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL that the tests of one file share."""
    with postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url
