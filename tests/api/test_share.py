"""No key holds up another: each has a share of the requests and of the queue, and the keys take turns."""

from contextlib import ExitStack

import httpx
import pytest

from service.api.keys import ANYBODY
from service.api.share import Share
from service.client.calls import bearer
from service.errors import TooManyRequests
from tests.running import Service, in_thread, until

ONE, OTHER = "1" * 32, "2" * 32


def client(service: Service, key: str) -> httpx.Client:
    return httpx.Client(base_url=service.url, headers=bearer(key), timeout=30)


def test_a_key_has_so_many_requests_under_way_and_no_more() -> None:
    share, other = Share(2), Share(2)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(share)
        with pytest.raises(TooManyRequests, match="2 requests under way"):
            held.enter_context(share)
        held.enter_context(other)
        for _ in range(9):
            held.enter_context(ANYBODY.share)
    with pytest.raises(ZeroDivisionError), share:
        raise ZeroDivisionError
    for _ in range(9):
        with share:
            pass
    assert (share.under_way, other.under_way) == (0, 0)


def test_streams_of_one_key_fill_its_share_and_no_others() -> None:
    with in_thread(api_keys=f"{ONE},{OTHER}", key_requests=2) as service, ExitStack() as open_streams:
        one, other = (open_streams.enter_context(client(service, key)) for key in (ONE, OTHER))
        for _ in range(2):
            open_streams.enter_context(one.stream("GET", "/events"))
        refused = one.get("/models")
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-requests")
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["retryable"] is True
        assert other.get("/models").status_code == 200
        assert one.get("/livez").status_code == 200
        open_streams.close()
        with client(service, ONE) as again:
            until(lambda: again.get("/models").status_code == 200)


def test_a_key_with_a_long_queue_does_not_hold_up_another() -> None:
    with in_thread(api_keys=f"{ONE},{OTHER}", queue_max=40, together_max=1) as service:
        service.wait_for_workers()
        with client(service, ONE) as one, client(service, OTHER) as other:
            size = {"in_features": 8, "out_features": 8, "rank": 1}
            plan = {"epochs": 200, "batch_size": 8, "data": {"kind": "random", "n_samples": 64}}
            answers = [
                one.post(f"/models/{one.post('/models', json=size).json()['id']}/train", json=plan) for _ in range(30)
            ]
            taken = [answer for answer in answers if answer.status_code == 202]
            assert 20 <= len(taken) < 30  # half of the queue, and what has begun meanwhile
            assert {answer.status_code for answer in answers} == {202, 429}
            model = other.post("/models", json=size).json()["id"]
            job = other.post(f"/models/{model}/train", json=plan, headers={"Prefer": "wait=60"}).json()
            assert job["state"] == "succeeded"
            states = [one.get(answer.headers["Location"]).json()["state"] for answer in taken]
            assert states.count("queued") > len(states) // 2  # they came before, and wait for longer
