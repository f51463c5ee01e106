"""Index ended instances by status before the time of their completion: one status may be rare among many ended ones."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _replace(*columns: str) -> None:
    ended = sa.text("completed_at IS NOT NULL")
    op.drop_index("ix_instances_completed", "instances")
    op.create_index("ix_instances_completed", "instances", list(columns), postgresql_where=ended, sqlite_where=ended)


def upgrade() -> None:
    """Put the status into the index."""
    _replace("hub_id", "status", "completed_at", "instance_id")


def downgrade() -> None:
    """Take it out."""
    _replace("hub_id", "completed_at", "instance_id")
