"""A database of every earlier revision is brought to the newest one, with all that it holds."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from alembic import command
from alembic.config import Config

from service.models.budget import Budget
from service.models.database import engine_on, revision, url_of
from service.models.registry import Registry
from service.models.rows import changed, packed_tensors
from service.models.sql import SqlStore
from service.models.tables import REVISION
from tests.models.layers import base, model


def made_at(path: Path, at: str) -> None:
    """An empty database as a version of that revision made it."""
    engine = engine_on(url_of(f"sqlite:///{path}"))
    config = Config(attributes={"engine": engine})
    config.set_main_option("script_location", "service/models/migrations")
    command.upgrade(config, at)
    assert revision(engine) == at
    engine.dispose()


def test_a_database_from_before_bases_of_their_own_tells_what_each_base_is(tmp_path: Path) -> None:
    path = tmp_path / "lora.db"
    made_at(path, "0001")
    old = {
        "mdl_00000000000000000000000001": base(5, 7, fill=0.5),
        "mdl_00000000000000000000000002": base(3, 4, bias=False),
    }
    with closing(sqlite3.connect(path)) as connection, connection:
        for model_id, on in old.items():
            of = model(model_id, on)
            tensors = {"weight": on.weight} | ({} if on.bias is None else {"bias": on.bias})
            (put,) = changed(of)
            connection.execute("INSERT INTO bases VALUES (?, ?, ?)", (on.id, on.nbytes, packed_tensors(tensors)))
            connection.execute("INSERT INTO models VALUES (:id, :base_id, :facts)", dict(put.columns))
            connection.execute("INSERT INTO adapters VALUES (?, ?)", (model_id, packed_tensors(of.adapter)))
    store = SqlStore(f"sqlite:///{path}")
    registry = Registry(100, Budget(2**30), store)
    assert {record.id: (record.out_features, record.in_features, record.bias) for record in registry.bases()} == {
        on.id: (*on.weight.shape, on.bias is not None) for on in old.values()
    }
    assert {(record.dtype, record.uploaded) for record in registry.bases()} == {("float32", False)}
    for model_id, on in old.items():
        there, before = registry.loaded(model_id), model(model_id, on)
        assert torch.equal(there.base.weight, on.weight)
        x = np.ones((2, on.weight.shape[1]), np.float32)
        assert np.array_equal(there.maps(x), before.maps(x))
    registry.remove(*old)
    assert registry.base_count == 0
    store.close()
    assert revision(engine_on(url_of(f"sqlite:///{path}"))) == REVISION
