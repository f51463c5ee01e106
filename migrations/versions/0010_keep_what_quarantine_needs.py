"""Keep with what is set aside everything that putting it back needs: an item, and the rows that it consists of.

The table of before could not put anything back; no release had it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Replace the table by two."""
    op.drop_table("quarantine")
    op.create_table(
        "quarantine",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("source", sa.SmallInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("cause", sa.LargeBinary, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("set_aside_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("hub_id", "source", "seq", "partition"),
    )
    op.create_index("ix_quarantine_time", "quarantine", ["hub_id", "set_aside_at", "source", "seq"])
    op.create_index("ix_quarantine_instance", "quarantine", ["hub_id", "instance_id", "set_aside_at", "source", "seq"])
    op.create_table(
        "quarantine_rows",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("item_source", sa.SmallInteger, nullable=False),
        sa.Column("item_seq", sa.BigInteger, nullable=False),
        sa.Column("source", sa.SmallInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", sa.Text),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("fire_at", sa.BigInteger),
        sa.Column("task_id", sa.Integer),
        sa.Column("name", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("hub_id", "item_source", "item_seq", "source", "seq", "partition"),
    )
    op.create_index("ix_quarantine_rows_instance", "quarantine_rows", ["hub_id", "instance_id"])


def downgrade() -> None:
    """Put the first form back, empty."""
    op.drop_table("quarantine_rows")
    op.drop_table("quarantine")
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    keys = [] if is_sqlite else [sa.PrimaryKeyConstraint("hub_id", "partition", "seq")]
    op.create_table(
        "quarantine",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, primary_key=True) if is_sqlite else sa.Column(
            "seq", sa.BigInteger, sa.Identity(cache=1), nullable=False),
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("cause", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        *keys, sqlite_autoincrement=True)
    op.create_index("ix_quarantine_instance", "quarantine", ["hub_id", "instance_id", "seq"])
