"""What the clients' writes have in common: locking an instance, queueing a message, sweeping what an instance left."""

from collections.abc import Sequence

from sqlalchemy import delete, select

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import NewMessage
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import COLUMNS
from durabletask_sql.storage.dialect import TEXT, Row, Statement, by_columns
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.tables import activity_queue, history, instances, payloads, quarantine, quarantine_rows

LOCK_INSTANCES = Statement("instances", lambda v: (
    select(*COLUMNS).select_from(v.join(instances, sql.by_key(instances, v)))
    .order_by(instances.c.partition, instances.c.instance_id).with_for_update(key_share=True, of=instances)), sql.KEYS)

DELETE_INSTANCES = Statement("instances", lambda v: (
    delete(instances).where(by_columns(instances, v, "partition", "instance_id"))), sql.KEYS)

DELETE_TASKS_OF = Statement("activity_queue", lambda v: (
    delete(activity_queue).where(sql.rows_left(activity_queue, v))), sql.KEYS)

DELETE_HISTORY_OF = Statement("history", lambda v: (
    delete(history).where(by_columns(history, v, "partition", "instance_id"))), sql.KEYS)

DELETE_PAYLOADS_OF = Statement("payloads", lambda v: (
    delete(payloads).where(by_columns(payloads, v, "partition", "instance_id"))), sql.KEYS)

# What was set aside of an instance. No other transaction locks such rows before anything else.
DELETE_ASIDE_OF = Statement("quarantine", lambda v: (
    delete(quarantine).where(by_columns(quarantine, v, "instance_id"))), {"instance_id": TEXT})

DELETE_ASIDE_ROWS_OF = Statement("quarantine_rows", lambda v: (
    delete(quarantine_rows).where(by_columns(quarantine_rows, v, "instance_id"))), {"instance_id": TEXT})


def message_row(message: NewMessage) -> Row:
    """Return a message as INSERT_MESSAGES takes it, held by nobody: its owner is woken, or finds it."""
    return (*message.key, message.execution_id, int(message.kind), 0, message.events)


def queue_message(session: Session, hub_id: int, message: NewMessage) -> None:
    """Queue a message that nobody holds."""
    session.send(sql.INSERT_MESSAGES, [message_row(message)], hub=hub_id)


def sweep(session: Session, hub_id: int, keys: Sequence[InstanceKey]) -> None:
    """Delete everything that instances left, in the fixed table order."""
    for statement in (DELETE_TASKS_OF, sql.SWEEP_MESSAGES, sql.SWEEP_TIMERS, DELETE_HISTORY_OF, DELETE_PAYLOADS_OF):
        session.send(statement, keys, hub=hub_id)
    for statement in (DELETE_ASIDE_OF, DELETE_ASIDE_ROWS_OF):
        session.send(statement, [(key.instance_id,) for key in keys], hub=hub_id)
