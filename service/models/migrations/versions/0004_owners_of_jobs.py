"""Jobs tell which key asked for them. Those before have none, so nothing changes but that older versions keep away."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
