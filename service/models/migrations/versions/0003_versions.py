"""Versions of models: before, there were the current weights alone. Jobs still tell where those came from."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Facts = dict[str, Any]


def upgrade() -> None:
    op.create_table(
        "versions",
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("tensors", sa.LargeBinary, nullable=False),
    )
    models = sa.table("models", sa.column("id"), sa.column("facts"))
    connection = op.get_bind()
    jobs = _publishing(connection)
    move = sa.text(
        "INSERT INTO versions (model_id, number, facts, tensors) "
        "SELECT model_id, :number, :facts, tensors FROM adapters WHERE model_id = :model_id"
    )
    for (model_id,) in connection.execute(sa.select(models.c.id)).all():
        model = json.loads(connection.execute(sa.select(models.c.facts).where(models.c.id == model_id)).scalar_one())
        number = model["version"]
        version = _origin(model, jobs.get((model_id, number)))
        connection.execute(move, {"model_id": model_id, "number": number, "facts": json.dumps(version)})
        marks = [{"number": number, "loss": version["loss"]}]
        facts = json.dumps({**model, "kept": marks}, ensure_ascii=False)
        connection.execute(models.update().where(models.c.id == model_id).values(facts=facts))
    op.drop_table("adapters")


def _publishing(connection: sa.Connection) -> dict[tuple[str, int], tuple[str, Facts]]:
    """The jobs that have published a version, by model and number."""
    jobs = sa.table("jobs", sa.column("id"), sa.column("model_id"), sa.column("facts"))
    found = {}
    for job_id, model_id, text in connection.execute(sa.select(jobs.c.id, jobs.c.model_id, jobs.c.facts)):
        facts = json.loads(text)
        if facts["model_version"] is not None:
            found[model_id, facts["model_version"]] = job_id, facts
    return found


def _origin(model: Facts, published: tuple[str, Facts] | None) -> Facts:
    """Where the weights of a model come from: a training whose job is known, its creation, or else an import."""
    number = model["version"]
    parent = number - 1 if number else None
    if published is None:
        origin, at = ("import", "updated_at") if number else ("created", "created_at")
        known: Facts = {"origin": origin, "created_at": model[at], "job_id": None, "plan": None, "loss": None}
    else:
        job_id, job = published
        loss = job["metrics"]["final_loss"]
        known = {
            "origin": "training",
            "created_at": job["finished_at"],
            "job_id": job_id,
            "plan": job["plan"],
            "loss": loss,
        }
    return {**known, "parent": parent}
