"""Keep look-ups by key out of the queues' other indexes on PostgreSQL."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_HELD = text("held_epoch >= -1")
_INDEXES = (
    ("ix_control_queue_held", "control_queue", ["hub_id", "partition", text("held_epoch DESC"), "seq"], _HELD),
    ("ix_timers_due", "timers", ["hub_id", "partition", "held_epoch", "fire_at"], _HELD),
    ("ix_activity_queue_host", "activity_queue", ["hub_id", "host", "seq"], text("host >= 0")),
)


def upgrade() -> None:
    """Make them partial, by conditions that hold for every row."""
    if op.get_context().dialect.name == "postgresql":
        for name, table, columns, condition in _INDEXES:
            op.drop_index(name, table)
            op.create_index(name, table, columns, postgresql_where=condition)


def downgrade() -> None:
    """Make them whole."""
    if op.get_context().dialect.name == "postgresql":
        for name, table, columns, _ in _INDEXES:
            op.drop_index(name, table)
            op.create_index(name, table, columns)
