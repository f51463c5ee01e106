"""What a sub-orchestration's end tells its parent. Addressed to the execution that started it, and to no later one."""

from durabletask_sql.ids import partition_of
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame

FIRE_AND_FORGET = "FireAndForget"


def child_ended_notice(row: InstanceRow, output: str | None, now: int, partition_count: int) -> NewMessage | None:
    """Return the message to the parent of an instance that ended as `row` says; None when nobody waits (S-187)."""
    if row.parent is None or FIRE_AND_FORGET in row.tags:
        return None
    if row.status is Status.COMPLETED:
        event = events.child_completed(now, row.parent.task_scheduled_id, output)
        return _to_parent(row, event, partition_count)
    if row.failure is not None:
        details = pb.TaskFailureDetails.FromString(row.failure)
    else:
        verb = row.status.name.lower()
        reason = f": {output}" if output else "."
        details = pb.TaskFailureDetails(errorType=f"Orchestration{verb.capitalize()}",
                                        errorMessage=f"Sub-orchestration '{row.instance_id}' was {verb}{reason}")
    return _to_parent(row, events.child_failed(now, row.parent.task_scheduled_id, details), partition_count)


def child_replaced_notice(row: InstanceRow, now: int, partition_count: int) -> NewMessage | None:
    """Return the message to the parent of a live instance that a re-creation replaces (S-414)."""
    if row.parent is None or FIRE_AND_FORGET in row.tags:
        return None
    details = pb.TaskFailureDetails(
        errorType="OrchestrationReplaced",
        errorMessage=f"Sub-orchestration '{row.instance_id}' was replaced by a new instance with the same id.")
    return _to_parent(row, events.child_failed(now, row.parent.task_scheduled_id, details), partition_count)


def _to_parent(row: InstanceRow, event: pb.HistoryEvent, partition_count: int) -> NewMessage:
    assert row.parent is not None
    parent = row.parent.instance_id
    return NewMessage(InstanceKey(partition_of(parent, partition_count), parent), row.parent.execution_id,
                      MessageKind.EVENT, frame(event))
