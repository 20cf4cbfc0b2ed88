"""The first tables: bases, models, jobs, data sets, sweeps and replies."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("progress", sa.Column("id", sa.Integer, primary_key=True), sa.Column("writes", sa.BigInteger))
    op.create_table(
        "bases",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("nbytes", sa.BigInteger, nullable=False),
        sa.Column("tensors", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("base_id", sa.Text, sa.ForeignKey("bases.id"), nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
    )
    op.create_table(
        "adapters",
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tensors", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "given", sa.Column("id", sa.Text, primary_key=True), sa.Column("tensors", sa.LargeBinary, nullable=False)
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("given_id", sa.Text),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("curves", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "states",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("tensors", sa.LargeBinary, nullable=False),
    )
    op.create_table("datasets", sa.Column("id", sa.Text, primary_key=True), sa.Column("facts", sa.Text, nullable=False))
    op.create_table(
        "uploads",
        sa.Column("dataset_id", sa.Text, sa.ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("tensors", sa.LargeBinary, nullable=False),
    )
    op.create_table("sweeps", sa.Column("id", sa.Text, primary_key=True), sa.Column("facts", sa.Text, nullable=False))
    op.create_table(
        "replies",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.execute("INSERT INTO progress (id, writes) VALUES (1, 0)")
