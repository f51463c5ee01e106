"""Index unclaimed activity tasks by name and version, and store versions as they are compared."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CLAIMED, UNCLAIMED = sa.text("host > 0"), sa.text("host = 0")
INDEXES = (("ix_activity_queue_host", ["hub_id", "host", "seq"], CLAIMED),
           ("ix_activity_queue_unclaimed", ["hub_id", "seq"], UNCLAIMED),
           ("ix_activity_queue_name", ["hub_id", "name", "seq"], UNCLAIMED),
           ("ix_activity_queue_version", ["hub_id", "name", "version", "seq"], UNCLAIMED))


def upgrade() -> None:
    """Replace the index; tasks of before get the version that workers' filters are compared with."""
    op.drop_index("ix_activity_queue_host", "activity_queue")
    for name, columns, where in INDEXES:
        op.create_index(name, "activity_queue", columns, postgresql_where=where, sqlite_where=where)
    op.execute("UPDATE activity_queue SET version = lower(coalesce(version, ''))")


def downgrade() -> None:
    """Put the index back; versions stay as they are compared."""
    for name, _, _ in INDEXES:
        op.drop_index(name, "activity_queue")
    op.create_index("ix_activity_queue_host", "activity_queue", ["hub_id", "host", "seq"],
                    postgresql_where=sa.text("host >= 0"))
