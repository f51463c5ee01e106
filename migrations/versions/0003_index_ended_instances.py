"""Index ended instances by the time of their completion."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    ended = sa.text("completed_at IS NOT NULL")
    op.create_index("ix_instances_completed", "instances", ["hub_id", "completed_at", "instance_id"],
                    postgresql_where=ended, sqlite_where=ended)


def downgrade() -> None:
    """Take it away."""
    op.drop_index("ix_instances_completed", "instances")
