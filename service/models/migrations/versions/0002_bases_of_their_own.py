"""Bases that are uploaded, and what is known of each: before, a base came and went with its models."""

import json
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("bases", sa.Column("facts", sa.Text, nullable=False, server_default="{}"))
    bases = sa.table("bases", sa.column("id"), sa.column("tensors"), sa.column("facts"))
    connection = op.get_bind()
    for (base_id,) in connection.execute(sa.select(bases.c.id)).all():
        tensors = connection.execute(sa.select(bases.c.tensors).where(bases.c.id == base_id)).scalar_one()
        header = json.loads(tensors[8 : 8 + int.from_bytes(tensors[:8], "little")])
        out_features, in_features = header["weight"]["shape"]
        facts = {
            "in_features": in_features,
            "out_features": out_features,
            "bias": "bias" in header,
            "dtype": "float32",
            "created_at": datetime.now(UTC).isoformat(),
            "uploaded": False,
        }
        connection.execute(bases.update().where(bases.c.id == base_id).values(facts=json.dumps(facts)))
