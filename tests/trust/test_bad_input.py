"""Each row of the sheet of bad input gets the answer that the sheet says, and nothing else happens."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.running import Service
from tests.trust.asking import Names, answer_to, filled
from tests.trust.invariant import nothing_else_happens, problem_in
from tests.trust.requests import adopt
from tests.trust.sheet import GOOD, SHEET, Row

ROWS = range(1, 38)


def test_the_sheet_is_whole_and_in_order() -> None:
    assert list(dict.fromkeys(row.number for row in SHEET)) == list(ROWS)
    assert len({(row.number, row.what) for row in SHEET}) == len(SHEET)


@pytest.mark.parametrize("row", SHEET, ids=lambda row: f"{row.number}, {row.what}")
def test_bad_input_is_answered_and_changes_nothing(held: tuple[Service, Names], row: Row) -> None:
    service, names = held
    parts = row.request.parts(names)
    with row.meanwhile(service), nothing_else_happens(service, row.status, row.counted, row.changes):
        answer = answer_to(service.url, parts)
    assert answer.status == row.status, answer.text
    assert filled(row.says.encode(), names).decode() in answer.text
    assert answer.raw.count(b"HTTP/1.1 ") == max(row.counted, 1)
    if row.slug:
        problem = problem_in(answer, b"".join(parts), row.status, row.slug)
        assert set(row.facts) <= set(problem)
        assert service.http.get(problem["type"]).status_code == 200
    for name in row.changes:
        made = answer.json()["id"]
        service.http.delete(f"/{name}/{made}").raise_for_status()


def test_a_file_cut_at_any_byte_is_refused_and_changes_nothing(held: tuple[Service, Names]) -> None:
    service, names = held
    with nothing_else_happens(service, 422, len(GOOD), {}):
        for length in range(len(GOOD)):
            parts = adopt(GOOD[:length]).parts(names)
            problem_in(answer_to(service.url, parts), b"".join(parts), 422, "bad-safetensors")


def test_an_id_that_is_none_opens_no_file(held: tuple[Service, Names]) -> None:
    service, names = held
    with files_opened() as opened:
        for row in SHEET:
            if row.number == 23:
                answer_to(service.url, row.request.parts(names))
    assert opened == []
    with files_opened() as opened:
        Path(__file__).read_bytes()
    assert opened == [__file__]


@contextmanager
def files_opened() -> Iterator[list[str]]:
    """The files that any thread of this process opens meanwhile."""
    opened: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)  # for good
    yield opened
    watching = False
