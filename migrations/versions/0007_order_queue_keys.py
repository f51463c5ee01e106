"""Put the sequence before the partition in the keys of control queue and timers, on PostgreSQL.

Reading a partition in another order than that of its sequence is then never cheaper by its key than by the index meant for
it, whatever the planner knows of the table.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES = ("control_queue", "timers")


def _order(*columns: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        for table in _TABLES:
            op.drop_constraint(f"{table}_pkey", table, type_="primary")
            op.create_primary_key(f"{table}_pkey", table, list(columns))


def upgrade() -> None:
    """Order them so."""
    _order("hub_id", "seq", "partition")


def downgrade() -> None:
    """Order them as they were."""
    _order("hub_id", "partition", "seq")
