"""One engine with two workers for all tests that leave it as they found it."""

from collections.abc import Iterator

import pytest

from service.engine import Engine
from tests.engine.engines import running, until_ready
from tests.running import until


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[Engine]:
    with running(workers=2) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """The shared engine, ready; afterwards its models go, and with them all that was held."""
    until_ready(shared_engine)
    yield shared_engine
    for model in shared_engine.registry.all():
        shared_engine.delete(model.id, force=True)
    until(lambda: shared_engine.budget.used == 0)
    assert (shared_engine.registry.base_count, len(shared_engine.queue)) == (0, 0)
    assert all(job.state.terminal for job in shared_engine.ledger.all())
