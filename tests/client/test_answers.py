"""Answers have types, and a service that says more than this client knows is understood."""

from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from service.client import Base, Dataset, Model, Sweep
from service.schemas.answers import MODEL_EXAMPLE
from service.schemas.training import JOB_EXAMPLE
from tests.client.conftest import Connect
from tests.client.servers import answer, scripted


def test_answers_have_the_attributes_of_the_schemas(client: Any) -> None:
    model = client.create(in_features=64, out_features=10, rank=4, metadata={"owner": "me"})
    assert isinstance(model, Model)
    assert (model.parameters.trainable, model.parameters.total, model.metadata) == (296, 946, {"owner": "me"})
    assert isinstance(model.created_at, datetime)
    assert isinstance(client.base(model.base_id), Base)
    assert isinstance(client.upload_dataset([[1.0]], [[2.0]]), Dataset)
    limits = client.limits().limits
    assert limits["max_models"].unit == "models"


def test_fields_of_a_newer_service_are_kept_and_break_nothing(connect: Connect) -> None:
    newer = {**MODEL_EXAMPLE, "color": "red", "parameters": {**MODEL_EXAMPLE["parameters"], "frozen_bytes": 9}}
    page = {"items": [{**JOB_EXAMPLE, "priority": 3}], "next_cursor": None, "total": 1}
    said = [answer("200 OK", orjson.dumps(body)) for body in (newer, page)]
    with scripted(*said) as server:
        client = connect(server.url)
        model = client.model(MODEL_EXAMPLE["id"])
        (job,) = client.jobs()
    assert (model.rank, model.color, model.parameters.frozen_bytes) == (4, "red", 9)
    assert (job.state, job.priority) == ("succeeded", 3)


def test_lists_ask_for_a_page_when_it_is_needed(connect: Connect) -> None:
    pages = [{"items": [MODEL_EXAMPLE], "next_cursor": cursor} for cursor in ("two", "three", None)]
    with scripted(*(answer("200 OK", orjson.dumps(page)) for page in pages)) as server:
        models = connect(server.url).models(name="a b")
        assert server.requests == []
        next(models)
        assert len(server.requests) == 1
        assert len(list(models)) == 2
    asked = [head.split()[1] for head, _ in server.requests]
    assert asked == ["/models?name=a+b", "/models?cursor=two&name=a+b", "/models?cursor=three&name=a+b"]


def test_what_the_service_made_stands_for_its_id(client: Any) -> None:
    base = client.upload_base([[1.0, 2.0], [3.0, 4.0]])
    one = client.create(base_id=base, rank=1, init="normal")
    both = client.create(combine=[{"model_id": one}, {"model_id": one.id, "weight": -1}], rank=1)
    assert (one.base_id, both.combined.members[1].model_id) == (base.id, one.id)
    assert client.analysis(one, beside=both).overlap.model_id == both.id
    dataset = client.upload_dataset([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    first = client.train(one, wait=30, data=dataset, validation=dataset)
    assert first.plan["data"]["id"] == dataset.id
    assert client.train(one, wait=30, data=dataset, continue_from=first).state == "succeeded"
    assert client.rank_profile(one, dataset).ranks[0].rank == 0
    assert client.model(one).version == 2


def test_a_name_is_given_and_taken_away(client: Any) -> None:
    model = client.create(in_features=4, out_features=4)
    name = f"that of {model.id}"
    assert client.update(model, name=name, metadata={"a": "b"}).metadata == {"a": "b"}
    assert [each.id for each in client.models(name=name)] == [model.id]
    assert client.update(model, name=None).name is None
    assert list(client.models(name=name)) == []
    assert [each.id for each in client.models(search=model.id[5:].lower())] == [model.id]
    client.delete(model)


def test_a_sweep_is_started_read_listed_and_deleted(client: Any) -> None:
    sizes = {"in_features": 6, "out_features": 5}
    sweep = client.create_sweep(model=sizes, over={"rank": [1, 2]}, train={"epochs": 5})
    assert isinstance(sweep, Sweep)
    for standing in sweep.leaderboard:
        client.job(standing.job_id).wait(30)
    ended = client.sweep(sweep)
    assert (ended.state, len(ended.leaderboard)) == ("ended", 2)
    assert sweep.id in [each.id for each in client.sweeps()]
    client.delete_sweep(sweep, keep=0)
    assert sweep.id not in [each.id for each in client.sweeps()]


def test_a_sweep_is_cancelled_and_its_models_stay(client: Any) -> None:
    train = {"epochs": 10_000, "batch_size": 1}
    sweep = client.create_sweep(model={"in_features": 6, "out_features": 5}, over={"rank": [1, 2]}, train=train)
    assert client.cancel_sweep(sweep).counts == {"cancelled": 2}
    assert [client.model(each.model_id).version for each in sweep.leaderboard] == [0, 0]
    assert client.cancel_sweep(sweep.id).state == "ended"


def test_rows_in_a_request_may_be_arrays(client: Any) -> None:
    model = client.create(in_features=2, out_features=1, rank=1)
    for x, y in ((np.eye(2, dtype=np.float32), np.ones((2, 1))), (torch.eye(2), torch.ones(2, 1))):
        job = client.train(model, wait=30, data={"kind": "inline", "x": x, "y": y})
        assert job.state == "succeeded"
    with pytest.raises(TypeError, match="not JSON serializable: object"):
        client.create(name=object())
