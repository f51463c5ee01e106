"""Sub-orchestrations as new instances."""

from durabletask_sql.ids import partition_of
from durabletask_sql.model.checkpoints import NewChild
from durabletask_sql.model.instances import InstanceKey, InstanceRow, ParentLink
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.turn.start import start_message


def new_child(parent: InstanceRow, task_id: int, body: pb.SubOrchestrationInstanceCreatedEvent, execution_id: str,
              now: int, partition_count: int) -> NewChild:
    """Return the instance that a recorded sub-orchestration asks for, and the refusal should its id be taken (S-102)."""
    child_id = body.instanceId
    row = InstanceRow(
        partition_of(child_id, partition_count), child_id, execution_id, 0, 1, body.name,
        body.version.value if body.HasField("version") else None, Status.PENDING, now, now,
        parent=link(parent, task_id), tags=dict(body.tags))
    text = body.input.value if body.HasField("input") else None
    trace = body.parentTraceContext if body.HasField("parentTraceContext") else None
    details = pb.TaskFailureDetails(
        errorType="OrchestrationAlreadyExists",
        errorMessage=f"Sub-orchestration '{child_id}' was not started: an instance with that id already exists and "
                     "has not ended.")
    refusal = events.child_failed(now, task_id, details)
    return NewChild(row, text, start_message(row, text, trace, now),
                    NewMessage(parent.key, parent.execution_id, MessageKind.EVENT, frame(refusal)))


def link(parent: InstanceRow, task_id: int) -> ParentLink:
    """Return what a sub-orchestration knows of the execution that waits for it."""
    return ParentLink(parent.instance_id, parent.execution_id, task_id, parent.name, parent.version)


def child_key(body: pb.SubOrchestrationInstanceCreatedEvent, partition_count: int) -> InstanceKey:
    """Return where a recorded sub-orchestration lives."""
    return InstanceKey(partition_of(body.instanceId, partition_count), body.instanceId)
