"""A client that knows a state of a model is told when it is still so, and stopped when it is not."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.api import etags


@pytest.fixture
def model(http: httpx.Client) -> dict:
    return http.post("/models", json={"in_features": 4, "out_features": 3, "rank": 2, "name": "a"}).json()


def tag_of(http: httpx.Client, model: dict) -> str:
    return http.get(f"/models/{model['id']}").headers["etag"]


def test_a_model_that_has_not_changed_is_304(http: httpx.Client, model: dict) -> None:
    path, tag = f"/models/{model['id']}", tag_of(http, model)
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = http.get(path, headers={"If-None-Match": header})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda http, path: http.patch(path, json={"name": "b"}),
        lambda http, path: http.post(f"{path}/train", headers={"Prefer": "wait=60"}),
        lambda http, path: http.post(f"{path}/rollback", json={"version": 0}),
    ],
)
def test_every_change_gives_another_tag(
    http: httpx.Client, model: dict, change: Callable[[httpx.Client, str], httpx.Response]
) -> None:
    before = tag_of(http, model)
    assert change(http, f"/models/{model['id']}").status_code == 200
    after = tag_of(http, model)
    assert int(after.strip('"')) > int(before.strip('"'))


def test_whoever_knows_an_older_state_changes_nothing(http: httpx.Client, model: dict) -> None:
    path, old = f"/models/{model['id']}", tag_of(http, model)
    renamed = http.patch(path, json={"name": "b"}, headers={"If-Match": old})
    assert (renamed.status_code, renamed.headers["etag"]) == (200, tag_of(http, model))
    for stale in (
        http.patch(path, json={"name": "c"}, headers={"If-Match": old}),
        http.delete(path, headers={"If-Match": old}),
    ):
        assert (stale.status_code, stale.json()["type"]) == (412, "/problems/stale")
    assert http.get(path).json()["name"] == "b"
    assert http.delete(path, headers={"If-Match": f"{old}, {renamed.headers['etag']}"}).status_code == 204


def test_of_many_at_once_with_one_tag_one_wins(http: httpx.Client, model: dict) -> None:
    path, tag = f"/models/{model['id']}", tag_of(http, model)

    def rename(number: int) -> int:
        return http.patch(path, json={"name": f"n{number}"}, headers={"If-Match": tag}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(rename, range(8))) == [200] + [412] * 7


def test_weights_have_the_tag_of_their_bytes(http: httpx.Client, model: dict) -> None:
    path = f"/models/{model['id']}/weights"
    weights = http.get(path)
    assert weights.headers["etag"] == etags.of_bytes(weights.content)
    assert http.get(path, headers={"If-None-Match": weights.headers["etag"]}).status_code == 304
