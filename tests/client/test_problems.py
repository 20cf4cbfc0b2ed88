"""A refusal is an exception of its own kind, which says in one line what was wrong and where to look."""

import pickle
from typing import Any

import httpx
import pytest

from service import errors
from service.client import Problem, Unreachable
from service.client.problems import problem_of
from service.errors import Fault
from tests.client.conftest import Connect
from tests.client.servers import answer, scripted
from tests.running import Service

NO_MODEL = "mdl_" + "0" * 26


def test_a_refusal_tells_what_the_service_said(client: Any) -> None:
    with pytest.raises(Problem) as caught:
        client.create(in_features=64, out_features=10, rank=12)
    problem = caught.value
    assert (problem.slug, problem.status, problem.retryable) == ("validation", 422, False)
    assert problem.title == errors.Validation.title()
    assert problem.detail == "rank is 12; it is at most min(in_features, out_features) = 10"
    assert problem.errors == (Fault("/rank", problem.detail),)
    assert problem.body["request_id"] == problem.request_id
    assert str(problem) == f"{problem.detail} (422, validation, request {problem.request_id})"


@pytest.mark.parametrize("kind", [errors.ModelNotFound, errors.NotFound, errors.ServiceError, Problem])
def test_it_is_caught_by_its_kind_and_by_its_family(client: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        client.model(NO_MODEL)
    assert type(caught.value).__name__ == "ModelNotFound"
    assert not isinstance(caught.value, errors.Validation)


def test_text_that_is_no_id_is_a_plain_not_found_and_what_can_be_no_address_is_not_sent(client: Any) -> None:
    with pytest.raises(errors.NotFound, match="an id looks like mdl_") as caught:
        client.model("nope")
    assert not isinstance(caught.value, errors.ModelNotFound)
    for text in ("", "a/b", ".."):
        with pytest.raises(ValueError, match="is no id; ids look like mdl_"):
            client.model(text)


def test_what_the_service_adds_is_told_too(client: Any) -> None:
    over = {"lr": {"low": 0.001, "high": 0.1, "count": 200}, "rank": [1, 2]}
    with pytest.raises(errors.LimitExceeded, match="400 combinations") as caught:
        client.create_sweep(model={"in_features": 4, "out_features": 4}, over=over)
    assert caught.value.facts == {"limit": 256}


@pytest.mark.parametrize("kind", errors.kinds(), ids=lambda kind: kind.__name__)
def test_every_kind_of_problem_has_its_exception(kind: type[errors.ServiceError]) -> None:
    problem = problem_of({"type": f"/problems/{kind.slug()}", "detail": "so"}, 400)
    assert isinstance(problem, kind)
    assert isinstance(problem, Problem)
    again = pickle.loads(pickle.dumps(problem))
    assert (type(again), str(again), again.body) == (type(problem), str(problem), problem.body)


def test_raising_one_adds_no_kind_to_those_of_the_service(client: Any) -> None:
    with pytest.raises(errors.ModelNotFound):
        client.model(NO_MODEL)
    assert [kind.__name__ for kind in errors.kinds()].count("ModelNotFound") == 1


def test_a_kind_that_is_new_is_a_problem() -> None:
    problem = problem_of({"type": "/problems/too-lazy", "title": "Too lazy", "detail": "come\nback"}, 418)
    assert type(problem) is Problem
    assert str(problem) == "come back (418, too-lazy)"


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[1, 2]", b'{"detail": "no"}', b""])
def test_what_no_service_wrote_is_quoted(connect: Connect, body: bytes) -> None:
    with scripted(answer("502 Bad Gateway", body, X_Request_Id="abc")) as server, pytest.raises(Problem) as caught:
        connect(server.url).limits()
    assert (type(caught.value), caught.value.slug, caught.value.request_id) == (Problem, "", "abc")
    assert f"{server.url}/limits answers {body.decode() or 'Bad Gateway'}" in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b'{"durable": 3}', b""])
def test_an_answer_of_another_form_is_a_problem_that_names_it(connect: Connect, body: bytes) -> None:
    with scripted(answer("200 OK", body)) as server:
        client = connect(server.url)
        with pytest.raises(Problem, match=f"{server.url}/limits gives what this client cannot read"):
            client.limits()
        with pytest.raises(Problem, match="cannot read"):
            client.merged("mdl_x")


@pytest.mark.parametrize("bad", ["", "../limits", "mdl_x/merged", "mdl x", "mdl_x?force=true", "."])
def test_text_that_is_no_id_is_not_sent(client: Any, bad: str) -> None:
    with pytest.raises(ValueError, match="is no id; ids look like mdl_"):
        client.delete(bad)


def test_an_address_that_is_none_is_unreachable(connect: Connect) -> None:
    with pytest.raises(Unreachable, match="Invalid port"):
        connect("http://127.0.0.1:80OO").limits()


@pytest.mark.parametrize("key", ["", "a b", "secret\r\n", "clé"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(connect: Connect, key: str) -> None:
    with pytest.raises(ValueError, match="the API key is empty, or holds") as caught:
        connect("http://127.0.0.1:9", api_key=key)
    assert "secret" not in str(caught.value)


def test_a_service_that_is_not_there_is_unreachable(connect: Connect) -> None:
    with scripted() as server:
        url = server.url
    with pytest.raises(Unreachable, match=f"{url} does not answer: ") as caught:
        connect(url, max_retries=0).ready()
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_the_events_of_a_job_that_is_not_there_are_refused(connect: Connect, service: Service) -> None:
    client = connect(service.url)
    job = client.train(client.create(in_features=4, out_features=4), wait=30)
    client.delete_job(job)
    with pytest.raises(errors.JobNotFound):
        next(job.events())
    with pytest.raises(errors.JobNotFound):
        job.refresh()
