"""What the clients' writes have in common: locking an instance, queueing a message, sweeping what an instance left."""

from sqlalchemy import delete, select

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import NewMessage
from durabletask_sql.storage import statements as sql
from durabletask_sql.storage.codec import COLUMNS
from durabletask_sql.storage.dialect import Statement, by_columns, in_rows, rows_of
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.tables import activity_queue, history, instances, payloads

LOCK_INSTANCE = Statement("instances", lambda v: (
    select(*COLUMNS).select_from(v.join(instances, sql.by_key(instances, v))).with_for_update(
        key_share=True, of=instances)), sql.KEYS)

DELETE_INSTANCE = Statement("instances", lambda v: (
    delete(instances).where(by_columns(instances, v, "partition", "instance_id"))), sql.KEYS)

DELETE_TASKS_OF = Statement("activity_queue", lambda v: (
    delete(activity_queue).where(in_rows(activity_queue, v, select(*rows_of(activity_queue)).select_from(
        v.join(activity_queue, sql.by_instance(activity_queue, v)))))), sql.KEYS)

DELETE_HISTORY_OF = Statement("history", lambda v: (
    delete(history).where(by_columns(history, v, "partition", "instance_id"))), sql.KEYS)

DELETE_PAYLOADS_OF = Statement("payloads", lambda v: (
    delete(payloads).where(by_columns(payloads, v, "partition", "instance_id"))), sql.KEYS)


def queue_message(session: Session, hub_id: int, message: NewMessage) -> None:
    """Queue a message that nobody holds: its owner is woken, or finds it."""
    session.send(sql.INSERT_MESSAGES, [(*message.key, message.execution_id, int(message.kind), 0, message.events)],
                 hub=hub_id)


def sweep(session: Session, hub_id: int, key: InstanceKey) -> None:
    """Delete everything that an instance left in queues, timers, history and payloads, in the fixed table order."""
    for statement in (DELETE_TASKS_OF, sql.SWEEP_MESSAGES, sql.SWEEP_TIMERS, DELETE_HISTORY_OF, DELETE_PAYLOADS_OF):
        session.send(statement, [key], hub=hub_id)
