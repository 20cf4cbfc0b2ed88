"""What tests of the client are given: both twins, one after the other."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from service.client import Client
from tests.client.driving import driven
from tests.running import Service

Connect = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients of one kind, which are closed at the end."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())

        def connected(url: str, **settings: Any) -> Any:
            made = Client(url, **settings) if request.param == "sync" else driven(url, runner, **settings)
            return stack.enter_context(made)

        yield connected


@pytest.fixture
def client(service: Service, connect: Connect) -> Any:
    """A client of the shared service."""
    return connect(service.url)
