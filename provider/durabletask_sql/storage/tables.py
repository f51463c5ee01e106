"""The tables, once, for both databases. Statements live beside their subject, never here.

Times are int64 microseconds since 1970 UTC, payload columns are bytes: no type processor stands on the hot path.
Every key begins with the hub, text keys collate by code point. On SQLite the queues' primary key is `seq` alone, because
only a lone INTEGER PRIMARY KEY AUTOINCREMENT never gives out a value twice: the migrations see to it.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData()

KEY: TypeEngine[str] = Text().with_variant(Text(collation="C"), "postgresql")
SEQUENCE: TypeEngine[int] = BigInteger().with_variant(Integer, "sqlite")

# True of every row, but only a statement about held_epoch can show it: PostgreSQL must not look rows up by (hub,
# partition, seq) in an index that has other columns between, which it otherwise may as long as a table is small.
_HELD = text("held_epoch >= -1")

task_hubs = Table(
    "task_hubs", metadata,
    Column("hub_id", Integer, Identity(), primary_key=True),
    Column("name", KEY, nullable=False, unique=True),
    Column("partition_count", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

hosts = Table(
    "hosts", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("host_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("started_at", Text, nullable=False),  # the process's start time as the machine tells it: pids are reused
    Column("heartbeat_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("hub_id", "host_id"),
)

partitions = Table(
    "partitions", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("owner", BigInteger, nullable=False, server_default=text("0")),  # hosts.host_id; 0: nobody
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    Column("next_owner", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("hub_id", "partition"),
)

instances = Table(
    "instances", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("execution_id", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("row_version", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text),
    Column("status", SmallInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("completed_at", BigInteger),
    Column("scheduled_at", BigInteger),
    Column("history_count", BigInteger, nullable=False),
    Column("last_turn_at", BigInteger, nullable=False),
    Column("custom_status", LargeBinary),
    Column("failure", LargeBinary),
    Column("parent_instance_id", KEY),
    Column("parent_execution_id", Text),
    Column("parent_task_id", Integer),
    Column("parent_name", Text),
    Column("parent_version", Text),
    Column("tags", LargeBinary),  # a JSON object
    Column("trace", LargeBinary),
    Column("rewinds", Integer, nullable=False, server_default=text("0")),
    Column("sections", LargeBinary),  # a JSON list: the open critical sections
    PrimaryKeyConstraint("hub_id", "partition", "instance_id"),
    Index("ix_instances_created", "hub_id", "created_at", "instance_id"),
    Index("ix_instances_by_id", "hub_id", "instance_id"),
    # The status comes first, so that no plan made while the table is empty finds an instance by its id in here.
    Index("ix_instances_status", "status", "hub_id", "created_at", "instance_id"),
    Index("ix_instances_completed", "hub_id", "status", "completed_at", "instance_id",
          postgresql_where=text("completed_at IS NOT NULL"), sqlite_where=text("completed_at IS NOT NULL")),
    Index("ix_instances_parent", "hub_id", "parent_instance_id",
          postgresql_where=text("parent_instance_id IS NOT NULL"), sqlite_where=text("parent_instance_id IS NOT NULL")),
    postgresql_with={"fillfactor": "70"},
)

entities = Table(
    "entities", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("row_version", BigInteger, nullable=False),
    Column("state", LargeBinary),
    Column("modified_at", BigInteger, nullable=False),
    Column("lock_instance_id", KEY),
    Column("lock_execution_id", Text),
    Column("lock_section_id", Text),
    PrimaryKeyConstraint("hub_id", "partition", "instance_id"),
    Index("ix_entities_by_id", "hub_id", "instance_id"),
    postgresql_with={"fillfactor": "70"},
)

history = Table(
    "history", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("execution_id", KEY, nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("events", LargeBinary, nullable=False),
    Column("refs", LargeBinary),  # which payloads belong where into the events; NULL: they are whole
    PrimaryKeyConstraint("hub_id", "partition", "instance_id", "execution_id", "first_sequence"),
)

payloads = Table(
    "payloads", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("execution_id", KEY, nullable=False),
    Column("payload_id", Integer, nullable=False),  # 0 input, 1 output, from 2 on texts taken out of history
    Column("content", LargeBinary, nullable=False),
    Column("unpacked_size", Integer),  # of compressed content
    PrimaryKeyConstraint("hub_id", "partition", "instance_id", "execution_id", "payload_id"),
)

control_queue = Table(
    "control_queue", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("seq", SEQUENCE, Identity(cache=1), nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("execution_id", Text),
    Column("kind", SmallInteger, nullable=False),
    Column("held_epoch", BigInteger, nullable=False),
    Column("events", LargeBinary, nullable=False),
    Column("failed_deliveries", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("hub_id", "seq", "partition"),
    Index("ix_control_queue_held", "hub_id", "partition", text("held_epoch DESC"), "seq", postgresql_where=_HELD),
    Index("ix_control_queue_instance", "hub_id", "instance_id", "seq"),
)

timers = Table(
    "timers", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("seq", SEQUENCE, Identity(cache=1), nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("execution_id", Text, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("fire_at", BigInteger, nullable=False),
    Column("held_epoch", BigInteger, nullable=False),
    Column("events", LargeBinary, nullable=False),
    Column("failed_deliveries", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("hub_id", "seq", "partition"),
    Index("ix_timers_due", "hub_id", "partition", "held_epoch", "fire_at", postgresql_where=_HELD),
    Index("ix_timers_instance", "hub_id", "instance_id", "seq"),
)

activity_queue = Table(
    "activity_queue", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("seq", SEQUENCE, Identity(cache=1), nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("execution_id", Text, nullable=False),
    Column("task_id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text),
    Column("host", BigInteger, nullable=False),  # 0: unclaimed
    Column("token", BigInteger, nullable=False),
    Column("failed_deliveries", Integer, nullable=False, server_default=text("0")),
    Column("event", LargeBinary, nullable=False),
    PrimaryKeyConstraint("hub_id", "partition", "seq"),
    Index("ix_activity_queue_instance", "hub_id", "instance_id", "seq"),
    Index("ix_activity_queue_host", "hub_id", "host", "seq",
          postgresql_where=text("host > 0"), sqlite_where=text("host > 0")),
    # Tasks that are born claimed never enter these.
    Index("ix_activity_queue_unclaimed", "hub_id", "seq",
          postgresql_where=text("host = 0"), sqlite_where=text("host = 0")),
    Index("ix_activity_queue_name", "hub_id", "name", "seq",
          postgresql_where=text("host = 0"), sqlite_where=text("host = 0")),
    Index("ix_activity_queue_version", "hub_id", "name", "version", "seq",
          postgresql_where=text("host = 0"), sqlite_where=text("host = 0")),
)

# What careful hosts have out (invariant I12).
dispatches = Table(
    "dispatches", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("host_id", BigInteger, nullable=False),
    Column("source", SmallInteger, nullable=False),  # model.quarantine.Source: the queue of the row
    Column("seq", BigInteger, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("suspect", SmallInteger, nullable=False),  # 1: its item was handed out as a suspect
    PrimaryKeyConstraint("hub_id", "host_id", "source", "seq", "partition"),
)

quarantine = Table(
    "quarantine", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("source", SmallInteger, nullable=False),  # with `seq`: the item's first row, by which it is known
    Column("seq", BigInteger, nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("execution_id", Text),
    Column("name", Text),
    Column("version", Text),
    Column("cause", LargeBinary, nullable=False),
    Column("worker", Text),
    Column("attempts", Integer, nullable=False),
    Column("set_aside_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("hub_id", "source", "seq", "partition"),
    Index("ix_quarantine_time", "hub_id", "set_aside_at", "source", "seq"),
    Index("ix_quarantine_instance", "hub_id", "instance_id", "set_aside_at", "source", "seq"),
)

quarantine_rows = Table(
    "quarantine_rows", metadata,
    Column("hub_id", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("item_source", SmallInteger, nullable=False),
    Column("item_seq", BigInteger, nullable=False),
    Column("source", SmallInteger, nullable=False),  # model.quarantine.Source: the queue that it was taken from
    Column("seq", BigInteger, nullable=False),
    Column("instance_id", KEY, nullable=False),
    Column("execution_id", Text),
    Column("kind", SmallInteger, nullable=False),
    Column("fire_at", BigInteger),
    Column("task_id", Integer),
    Column("name", Text),
    Column("version", Text),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("hub_id", "item_source", "item_seq", "source", "seq", "partition"),
    Index("ix_quarantine_rows_instance", "hub_id", "instance_id"),
)
