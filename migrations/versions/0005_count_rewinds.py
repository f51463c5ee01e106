"""Count how often an instance's execution was rewound: its history then holds events that workers must not see."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; nothing was rewound so far."""
    op.add_column("instances", sa.Column("rewinds", sa.Integer, nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    """Drop the column. Workers of an older server may stumble over the histories of rewound instances."""
    op.drop_column("instances", "rewinds")
