"""Start messages: how an execution begins."""

from collections.abc import Iterable

from durabletask_sql.model.instances import InstanceRow, ParentLink
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame


def start_message(row: InstanceRow, text: str | None, trace: pb.TraceContext | None, now: int,
                  following: Iterable[bytes] = ()) -> NewMessage:
    """Return the start row of an execution: ExecutionStarted with this input, then the `following` framed events."""
    started = events.execution_started(now, events.Start(
        name=row.name, instance_id=row.instance_id, execution_id=row.execution_id, version=row.version, input=text,
        parent=parent_info(row.parent), scheduled_at=row.scheduled_at, tags=row.tags, trace=trace))
    return NewMessage(row.key, row.execution_id, MessageKind.START, b"".join((frame(started), *following)))


def parent_info(parent: ParentLink | None) -> pb.ParentInstanceInfo | None:
    """Return a parent as the wire has it."""
    if parent is None:
        return None
    return pb.ParentInstanceInfo(
        taskScheduledId=parent.task_scheduled_id, name=events.text(parent.name), version=events.text(parent.version),
        orchestrationInstance=pb.OrchestrationInstance(instanceId=parent.instance_id,
                                                       executionId=events.text(parent.execution_id)))
