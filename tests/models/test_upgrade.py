"""A database of every earlier revision is brought to the newest one, with all that it holds."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from alembic import command
from alembic.config import Config

from service.clock import Instant
from service.jobs.job import Job
from service.jobs.state import State
from service.models import job_rows
from service.models.base import BaseRecord
from service.models.base_rows import added
from service.models.budget import Budget
from service.models.database import engine_on, revision, url_of
from service.models.model import LoadedModel
from service.models.registry import Registry
from service.models.rows import changed, packed_tensors
from service.models.sql import SqlStore
from service.models.tables import REVISION
from service.models.versions import Mark
from service.training.plan import Plan, as_dict
from service.training.sources import Random
from tests.models.layers import NOW, base, filled, model, trained


def made_at(path: Path, at: str) -> None:
    """An empty database as a version of that revision made it."""
    engine = engine_on(url_of(f"sqlite:///{path}"))
    config = Config(attributes={"engine": engine})
    config.set_main_option("script_location", "service/models/migrations")
    command.upgrade(config, at)
    assert revision(engine) == at
    engine.dispose()


def put(connection: sqlite3.Connection, of: LoadedModel) -> None:
    """A model as it was stored before there were versions."""
    (row,) = changed(of)
    facts = {name: value for name, value in json.loads(row.columns["facts"]).items() if name != "kept"}
    connection.execute("INSERT INTO models VALUES (?, ?, ?)", (of.id, of.base_id, json.dumps(facts)))
    connection.execute("INSERT INTO adapters VALUES (?, ?)", (of.id, packed_tensors(of.adapter)))


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
            connection.execute("INSERT INTO bases VALUES (?, ?, ?)", (on.id, on.nbytes, packed_tensors(tensors)))
            put(connection, of)
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


PLAN = Plan(seed=1, data=Random(seed=1))


def job(model_id: str, version: int | None) -> tuple[object, ...]:
    """The row of a job that has published a version, or none."""
    facts = {
        "model_version": version,
        "finished_at": NOW.isoformat(),
        "metrics": {} if version is None else {"final_loss": 0.5},
        "plan": as_dict(PLAN),
    }
    return f"job_{version}", model_id, None, True, json.dumps(facts), b""


def test_a_database_from_before_versions_keeps_the_weights_that_were_current_and_where_they_came_from(
    tmp_path: Path,
) -> None:
    path, on = tmp_path / "lora.db", base()
    made_at(path, "0002")
    fresh, imported, trained_, renamed = (f"mdl_0000000000000000000000000{number}" for number in range(4))
    at = {fresh: 0, imported: 3, trained_: 2, renamed: 2}
    with closing(sqlite3.connect(path)) as connection, connection:
        (row,) = added(BaseRecord.of(on, NOW, uploaded=True), on)
        connection.execute(
            "INSERT INTO bases (id, nbytes, facts, tensors) VALUES (:id, :nbytes, :facts, :tensors)", dict(row.columns)
        )
        for model_id, version in at.items():
            put(connection, replace(model(model_id, on, version=version, name="ñ"), adapter=filled(version)))
        for row_of in (job(trained_, 2), job(imported, 1), job(trained_, None)):
            connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?)", row_of)
    with closing(SqlStore(f"sqlite:///{path}")) as store:
        registry = Registry(100, Budget(2**30), store)
        known = {model_id: registry.versions(model_id)[1] for model_id in at}
        assert {model_id: [version.number for version in of] for model_id, of in known.items()} == {
            model_id: [version] for model_id, version in at.items()
        }
        assert [(of.origin, of.parent, of.job_id, of.plan, of.loss) for (of,) in known.values()] == [
            ("created", None, None, None, None),
            ("import", 2, None, None, None),
            ("training", 1, "job_2", PLAN, 0.5),
            ("import", 1, None, None, None),
        ]
        for model_id, version in at.items():
            assert float(registry.loaded(model_id).adapter["A"].max()) == version
            assert registry.get(model_id).name == "ñ"
        assert registry.get(trained_).kept == (Mark(2, 0.5),)
        registry.publish(trained_, filled(9), trained)
        assert float(registry.loaded(trained_, 2).adapter["A"].max()) == 2
        registry.remove(*at)
        assert list(store.rows("versions", "number")) == []


def test_a_database_from_before_servers_side_by_side_tells_how_large_states_are_and_drops_rows_that_nobody_needs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lora.db"
    made_at(path, "0004")
    ended = Job.queued("job_1", "mdl_1", 1, Plan(data=Random()), NOW).moved(State.FAILED, Instant(NOW, 1.0))
    waiting = replace(ended, id="job_2", history=ended.history[:1], given_id="job_2")
    with closing(sqlite3.connect(path)) as connection, connection:
        for job in (ended, waiting):
            columns = next(job_rows.changed(job)).columns
            facts = {name: value for name, value in json.loads(columns["facts"]).items() if name != "state_bytes"}
            row = {**columns, "facts": json.dumps(facts)}
            connection.execute("INSERT INTO jobs VALUES (:id, :model_id, :given_id, :ended, :facts, :curves)", row)
        connection.execute("INSERT INTO states VALUES ('job_1', '{}', ?)", (bytes(1_000),))
        for given_id in ("job_1", "job_2"):
            connection.execute("INSERT INTO given VALUES (?, ?)", (given_id, b""))
    store = SqlStore(f"sqlite:///{path}")
    assert [job.state_bytes for job in job_rows.jobs(store, Instant(NOW, 2.0))] == [1_000, 0]
    assert [row["id"] for row in store.rows("given", "id")] == ["job_2"]
    store.close()
