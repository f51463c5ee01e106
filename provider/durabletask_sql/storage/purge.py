"""Deleting what has ended, with all that it left."""

from collections.abc import Mapping

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.storage.codec import decode_instance
from durabletask_sql.storage.session import Session
from durabletask_sql.storage.writes import DELETE_INSTANCES, LOCK_INSTANCES, sweep


def purge(session: Session, hub_id: int, executions: Mapping[InstanceKey, str | None]) -> frozenset[InstanceKey]:
    """Delete the instances that have ended, of those with an execution id only that execution; return which went."""
    rows = map(decode_instance, session.ask(LOCK_INSTANCES, sorted(executions), hub=hub_id))
    gone = [row.key for row in rows
            if row.status.is_terminal and executions[row.key] in (None, row.execution_id)]
    if gone:
        session.send(DELETE_INSTANCES, gone, hub=hub_id)
        sweep(session, hub_id, gone)
    return frozenset(gone)
