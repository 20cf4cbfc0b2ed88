"""What a model was made of is remembered, and of older models nothing of the kind is known."""

from dataclasses import replace

import orjson

from service.models import rows
from service.models.combined import Combined, Member
from service.models.model import Model
from service.models.store import MemoryOnly
from tests.models.layers import base, model

A_SUM = Combined((Member("mdl_00000000000000000000000001", 3, 0.1), Member("mdl_x", 0, -2.0)), 7, 0.25, 1e-9)


class Rows(MemoryOnly):
    """A store that has one row of a model."""

    def __init__(self, facts: str) -> None:
        self.facts = facts

    def rows(self, table: str, *columns: str, **where: object):
        yield {"id": "mdl_a", "base_id": "base_b", "facts": self.facts}


def facts_of(of: Model) -> str:
    (put,) = rows.changed(of)
    return str(put.columns["facts"])


def test_a_sum_is_read_back_as_it_was() -> None:
    of = replace(model("mdl_a", base(4, 3)), combined=A_SUM)
    (again,) = rows.models(Rows(facts_of(of)))
    assert again.combined == A_SUM


def test_of_a_model_that_was_stored_before_there_were_sums_there_is_none() -> None:
    facts = orjson.loads(facts_of(model("mdl_a", base(4, 3))))
    assert facts.pop("combined") is None
    (again,) = rows.models(Rows(orjson.dumps(facts).decode()))
    assert again.combined is None


def test_it_stays_what_the_model_was_made_of() -> None:
    of = replace(model("mdl_a", base(4, 3)), combined=A_SUM)
    assert of.published(of.next(of.created_at, "training"), of.kept).noted(of.created_at, name="n").combined is A_SUM
