"""Count the failed deliveries of messages and timers, as those of activity tasks, and keep what careful hosts have out."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TABLES = ("control_queue", "timers")


def upgrade() -> None:
    """Add the columns and the table."""
    for table in _TABLES:
        op.add_column(table, sa.Column("failed_deliveries", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "dispatches",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("host_id", sa.BigInteger, nullable=False),
        sa.Column("source", sa.SmallInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("suspect", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("hub_id", "host_id", "source", "seq", "partition"),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("dispatches")
    for table in _TABLES:
        op.drop_column(table, "failed_deliveries")
