"""Put the status first in the index of instances by status.

Plans are made once a session, often while the table is empty. PostgreSQL then took this index for as good as the primary
key for finding an instance by its id, and read all of it for each turn until the table was first analyzed.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def _replace(*columns: str) -> None:
    op.drop_index("ix_instances_status", "instances")
    op.create_index("ix_instances_status", "instances", list(columns))


def upgrade() -> None:
    """Put it before the hub."""
    _replace("status", "hub_id", "created_at", "instance_id")


def downgrade() -> None:
    """Put it behind the hub."""
    _replace("hub_id", "status", "created_at", "instance_id")
