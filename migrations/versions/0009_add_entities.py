"""Add entities: their table, and the open critical sections of an execution."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table and the column."""
    op.add_column("instances", sa.Column("sections", sa.LargeBinary))
    op.create_table(
        "entities",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("row_version", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.Column("lock_instance_id", KEY),
        sa.Column("lock_execution_id", sa.Text),
        sa.Column("lock_section_id", sa.Text),
        sa.PrimaryKeyConstraint("hub_id", "partition", "instance_id"),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("ix_entities_by_id", "entities", ["hub_id", "instance_id"])
    if op.get_bind().dialect.name != "sqlite":
        op.execute("ALTER TABLE entities SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, "
                   "autovacuum_vacuum_cost_delay = 0)")


def downgrade() -> None:
    """Drop them."""
    op.drop_table("entities")
    op.drop_column("instances", "sections")
