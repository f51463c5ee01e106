"""Let payloads be compressed: the size that the content has when it is unpacked."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what is there is not compressed."""
    op.add_column("payloads", sa.Column("unpacked_size", sa.Integer))


def downgrade() -> None:
    """Drop the column. Compressed payloads cannot be read any more by a program of the older schema."""
    op.drop_column("payloads", "unpacked_size")
