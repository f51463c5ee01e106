"""Create the tables of a task hub: instances, history, queues, timers, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_QUEUES = ("control_queue", "timers", "activity_queue", "quarantine")
_BUSY = ("instances", "control_queue", "timers", "activity_queue", "history", "payloads")


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _create_queue(name: str, *columns: sa.Column[object]) -> None:
    """Create a table with a sequence of its own.

    SQLite gives a value out only once if the sequence is a lone INTEGER PRIMARY KEY AUTOINCREMENT; on PostgreSQL the
    key begins with hub and partition, so that a table can be partitioned by them.
    """
    places = (sa.Column("hub_id", sa.Integer, nullable=False), sa.Column("partition", sa.Integer, nullable=False))
    if _is_sqlite():
        op.create_table(name, *places, sa.Column("seq", sa.Integer, primary_key=True, nullable=False), *columns,
                        sqlite_autoincrement=True)
    else:
        op.create_table(name, *places, sa.Column("seq", sa.BigInteger, sa.Identity(cache=1), nullable=False), *columns,
                        sa.PrimaryKeyConstraint("hub_id", "partition", "seq"))


def upgrade() -> None:
    """Create everything."""
    _create_hubs()
    _create_instances()
    _create_queues()
    _create_indexes()
    if not _is_sqlite():
        for table in _BUSY:
            op.execute(f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, "
                       "autovacuum_vacuum_cost_delay = 0)")


def _create_hubs() -> None:
    op.create_table(
        "task_hubs",
        sa.Column("hub_id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("name", KEY, nullable=False, unique=True),
        sa.Column("partition_count", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "hosts",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("host_id", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.Text, nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("hub_id", "host_id"),
    )
    op.create_table(
        "partitions",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("owner", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("next_owner", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("hub_id", "partition"),
    )


def _create_instances() -> None:
    op.create_table(
        "instances",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("row_version", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("scheduled_at", sa.BigInteger),
        sa.Column("history_count", sa.BigInteger, nullable=False),
        sa.Column("last_turn_at", sa.BigInteger, nullable=False),
        sa.Column("custom_status", sa.LargeBinary),
        sa.Column("failure", sa.LargeBinary),
        sa.Column("parent_instance_id", KEY),
        sa.Column("parent_execution_id", sa.Text),
        sa.Column("parent_task_id", sa.Integer),
        sa.Column("parent_name", sa.Text),
        sa.Column("parent_version", sa.Text),
        sa.Column("tags", sa.LargeBinary),
        sa.Column("trace", sa.LargeBinary),
        sa.PrimaryKeyConstraint("hub_id", "partition", "instance_id"),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_table(
        "history",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", KEY, nullable=False),
        sa.Column("first_sequence", sa.BigInteger, nullable=False),
        sa.Column("event_count", sa.Integer, nullable=False),
        sa.Column("events", sa.LargeBinary, nullable=False),
        sa.Column("refs", sa.LargeBinary),
        sa.PrimaryKeyConstraint("hub_id", "partition", "instance_id", "execution_id", "first_sequence"),
    )
    op.create_table(
        "payloads",
        sa.Column("hub_id", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", KEY, nullable=False),
        sa.Column("payload_id", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("hub_id", "partition", "instance_id", "execution_id", "payload_id"),
    )


def _create_queues() -> None:
    _create_queue(
        "control_queue",
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", sa.Text),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("held_epoch", sa.BigInteger, nullable=False),
        sa.Column("events", sa.LargeBinary, nullable=False),
    )
    _create_queue(
        "timers",
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", sa.Text, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("fire_at", sa.BigInteger, nullable=False),
        sa.Column("held_epoch", sa.BigInteger, nullable=False),
        sa.Column("events", sa.LargeBinary, nullable=False),
    )
    _create_queue(
        "activity_queue",
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", sa.Text, nullable=False),
        sa.Column("task_id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("host", sa.BigInteger, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("failed_deliveries", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("event", sa.LargeBinary, nullable=False),
    )
    _create_queue(
        "quarantine",
        sa.Column("instance_id", KEY, nullable=False),
        sa.Column("execution_id", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("cause", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )


def _create_indexes() -> None:
    op.create_index("ix_instances_created", "instances", ["hub_id", "created_at", "instance_id"])
    op.create_index("ix_instances_by_id", "instances", ["hub_id", "instance_id"])
    op.create_index("ix_instances_status", "instances", ["hub_id", "status", "created_at", "instance_id"])
    has_parent = sa.text("parent_instance_id IS NOT NULL")
    op.create_index("ix_instances_parent", "instances", ["hub_id", "parent_instance_id"],
                    postgresql_where=has_parent, sqlite_where=has_parent)
    op.create_index("ix_control_queue_held", "control_queue",
                    ["hub_id", "partition", sa.text("held_epoch DESC"), "seq"])
    op.create_index("ix_timers_due", "timers", ["hub_id", "partition", "held_epoch", "fire_at"])
    op.create_index("ix_activity_queue_host", "activity_queue", ["hub_id", "host", "seq"])
    for table in _QUEUES:
        op.create_index(f"ix_{table}_instance", table, ["hub_id", "instance_id", "seq"])


def downgrade() -> None:
    """Drop everything."""
    for table in (*_QUEUES, "payloads", "history", "instances", "partitions", "hosts", "task_hubs"):
        op.drop_table(table)
