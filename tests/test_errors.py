"""Every error has a title, a slug of its own and something to tell."""

import inspect
import re

import pytest

from service import errors
from service.errors import (
    CapacityExhausted,
    Conflict,
    Draining,
    Fault,
    IdempotencyInFlight,
    MalformedJson,
    ModelNotFound,
    NotFound,
    NotReady,
    RequestTimeout,
    ServiceError,
    ShapeMismatch,
    StorageUnavailable,
    TemporaryReducedCapacity,
    TooManyRequests,
    Unreadable,
    UriTooLong,
    Validation,
    pointer,
)

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ServiceError)]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@every_kind
def test_every_error_has_a_title_that_reads_as_a_sentence(kind):
    assert "__doc__" in vars(kind)
    assert kind.__doc__
    assert re.fullmatch(r"[A-Z][^\n]{10,60}[^.\n]", kind.title())
    assert kind.__doc__.partition("\n")[0] == f"{kind.title()}."


@every_kind
def test_every_slug_is_words_between_hyphens(kind):
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.slug())
    assert kind.slug().replace("-", "") == kind.__name__.lower()


def test_no_two_errors_share_a_slug_or_a_title():
    assert len({kind.slug() for kind in KINDS}) == len({kind.title() for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(
    ("kind", "slug"),
    [(MalformedJson, "malformed-json"), (ModelNotFound, "model-not-found"), (UriTooLong, "uri-too-long")],
)
def test_a_slug_is_the_name_in_kebab_case(kind, slug):
    assert kind.slug() == slug


@every_kind
def test_an_error_carries_its_detail_its_faults_and_its_facts(kind):
    fault = Fault("/data/x/3", "is not a number")
    error = kind("something is wrong", fault, limit=3, unit="MiB")
    assert (str(error), error.detail) == ("something is wrong", "something is wrong")
    assert error.faults == (fault,)
    assert error.facts == {"limit": 3, "unit": "MiB"}
    assert (kind("x").faults, kind("x").facts) == ((), {})


def test_only_what_passes_by_itself_is_worth_a_retry():
    assert {kind for kind in KINDS if kind.retryable} == {
        TemporaryReducedCapacity,
        StorageUnavailable,
        IdempotencyInFlight,
        NotReady,
        Draining,
        RequestTimeout,
        TooManyRequests,
    }


def test_errors_of_a_kind_can_be_caught_together():
    assert issubclass(MalformedJson, Unreadable)
    assert issubclass(ShapeMismatch, Validation)
    assert issubclass(ModelNotFound, NotFound)
    assert issubclass(CapacityExhausted, Conflict)
    assert not issubclass(Unreadable, Validation)


@pytest.mark.parametrize(
    ("path", "expected"),
    [((), ""), (("inputs", 1, 3), "/inputs/1/3"), (("a/b", "~c", ""), "/a~1b/~0c/"), (("~1",), "/~01")],
)
def test_a_pointer_is_that_of_rfc_6901(path, expected):
    assert pointer(*path) == expected
