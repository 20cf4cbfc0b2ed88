"""The tables of the database. Tensors are safetensors; ids sort in the order in which things were made."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

# The newest migration: a database at an older one is brought here, one at a newer one is refused.
REVISION = "0005"

METADATA = MetaData()

# Where several servers write: what each transaction changed, by its number, as far back as any of them may need it.
CHANGES = Table(
    "changes",
    METADATA,
    Column("number", BigInteger, primary_key=True),
    Column("server", Text, nullable=False),
    Column("changed", Text, nullable=False),
)
# There too: which server trains a job and until when it is nobody else's; the fence grows with each that takes it.
LEASES = Table(
    "leases",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("server", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("until", DateTime(timezone=True), nullable=False),
)
# One row: how many transactions there have been, by which it is known whether the last one took place.
PROGRESS = Table("progress", METADATA, Column("id", Integer, primary_key=True), Column("writes", BigInteger))

Table(
    "bases",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("nbytes", BigInteger, nullable=False),
    Column("tensors", LargeBinary, nullable=False),
    Column("facts", Text, nullable=False, server_default="{}"),
)
Table(
    "models",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("base_id", Text, ForeignKey("bases.id"), nullable=False),
    Column("facts", Text, nullable=False),
)
# Those that are kept, the current ones among them; apart from the models, so that a start reads no weights.
Table(
    "versions",
    METADATA,
    Column("model_id", Text, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("facts", Text, nullable=False),
    Column("tensors", LargeBinary, nullable=False),
)
# Rows that came with a request; several jobs may learn from them.
Table("given", METADATA, Column("id", Text, primary_key=True), Column("tensors", LargeBinary, nullable=False))
Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("model_id", Text, nullable=False),
    Column("given_id", Text),
    Column("ended", Boolean, nullable=False),
    Column("facts", Text, nullable=False),
    Column("curves", LargeBinary, nullable=False),
    Index("jobs_by_given", "given_id"),
)
# Where a job stands that has not ended, and where one stopped that may be continued.
Table(
    "states",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("facts", Text, nullable=False),
    Column("tensors", LargeBinary, nullable=False),
)
# There too: epochs of a job that trains, for those who follow it elsewhere.
Table(
    "epochs",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("curves", LargeBinary, nullable=False),
)
Table("datasets", METADATA, Column("id", Text, primary_key=True), Column("facts", Text, nullable=False))
# Each upload, in order: its rows where they are kept, and its moments where there are some.
Table(
    "uploads",
    METADATA,
    Column("dataset_id", Text, ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("facts", Text, nullable=False),
    Column("tensors", LargeBinary, nullable=False),
)
Table("sweeps", METADATA, Column("id", Text, primary_key=True), Column("facts", Text, nullable=False))
# What was answered under an Idempotency-Key.
Table(
    "replies",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("created_at", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# What a backup has: the others tell what servers do now.
LASTING = [table for table in METADATA.sorted_tables if table.name not in ("changes", "leases", "epochs")]
