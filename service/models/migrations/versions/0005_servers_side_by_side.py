"""Several servers may share a database: what each changes, which jobs it has, and how far they are.

A job tells how large the state is that it left, so that nobody need read it to know. Rows that came with a request go
with the last job that needs them; those that nobody needs go now.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("changed", sa.Text, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "epochs",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("first", sa.Integer, primary_key=True),
        sa.Column("curves", sa.LargeBinary, nullable=False),
    )
    op.create_index("jobs_by_given", "jobs", ["given_id"])
    connection = op.get_bind()
    connection.execute(
        sa.text("DELETE FROM given WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.given_id = given.id)")
    )
    left = sa.text("SELECT id, jobs.facts, length(tensors) FROM jobs JOIN states ON job_id = id")
    tell = sa.text("UPDATE jobs SET facts = :facts WHERE id = :id")
    for job_id, facts, size in connection.execute(left).all():
        told = {**json.loads(facts), "state_bytes": size}
        connection.execute(tell, {"id": job_id, "facts": json.dumps(told, ensure_ascii=False)})
