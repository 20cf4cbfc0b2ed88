"""Bad input costs a service no memory that it does not give back, however often it comes."""

from collections.abc import Iterator
from itertools import cycle, islice

import httpx
import pytest

from tests.memory import peak_growth, resident
from tests.running import as_process, until
from tests.trust.asking import Names, answer_to
from tests.trust.ground import BODY_MIB, SMALL
from tests.trust.sheet import SHEET

REPEATS = 60
WARMING = 20
MIB = 2**20


@pytest.fixture(scope="module")
def alone() -> Iterator[tuple[int, str, Names]]:
    """A service in a process of its own, which holds one model: its process, its URL, and the model's id."""
    with as_process(LORA_WORKERS="1", LORA_JSON_BODY_MIB=str(BODY_MIB)) as (process, url):
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        model = httpx.post(f"{url}/models", json=SMALL).json()["id"]
        yield process.pid, url, {"model": model}


@pytest.mark.parametrize("number", [3, 6, 8, 14, 17, 18])
def test_memory_stays_what_it_is(alone: tuple[int, str, Names], number: int) -> None:
    pid, url, names = alone
    rows = [(row.request.parts(names), row.status) for row in SHEET if row.number == number]

    def answered(times: int) -> bool:
        return all(answer_to(url, parts).status == status for parts, status in islice(cycle(rows), times))

    assert answered(WARMING)
    before, peak = resident(pid), peak_growth(pid)
    assert answered(REPEATS)
    assert resident(pid) - before <= 5 * MIB
    assert peak() <= 6 * BODY_MIB * MIB  # a body, and what reading it takes
