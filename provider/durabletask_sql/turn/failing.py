"""What an operator's giving up on something that was set aside means to those who wait for it. Pure."""

from collections.abc import Sequence

from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.ids import partition_of
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, NewMessage, QueueRow
from durabletask_sql.model.quarantine import AsideItem, AsideKind, AsideRow
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.turn.entity.messages import Operation, read, write_failure

ERROR_TYPE = "SetAside"
_NOUNS = {AsideKind.TURN: "orchestration", AsideKind.ENTITY: "entity", AsideKind.ACTIVITY: "activity"}


def failure_of(item: AsideItem) -> pb.TaskFailureDetails:
    """Return the failure that those who wait are told."""
    named = f" {item.name!r}" if item.name else ""
    return pb.TaskFailureDetails(
        errorType=ERROR_TYPE, isNonRetriable=True,
        errorMessage=f"The {_NOUNS[item.kind]}{named} was set aside after {item.attempts} failed "
                     f"deliver{'y' if item.attempts == 1 else 'ies'}, and given up: {item.cause}")


def failed_task(item: AsideItem, task: AsideRow, now: int) -> NewMessage:
    """Return the message that tells an orchestration that its activity failed."""
    assert task.task_id is not None
    event = events.task_failed(now, task.task_id, failure_of(item))
    return NewMessage(item.key, task.execution_id, MessageKind.EVENT, frame(event))


def failed_operations(item: AsideItem, rows: Sequence[AsideRow], now: int, partition_count: int
                      ) -> list[NewMessage] | None:
    """Return what tells the callers of an entity that their operations failed.

    Nobody waits for signals, nor for what no entity understands. None: a lock is asked for or released here, which cannot
    fail.
    """
    found = []
    for row in rows:
        try:
            message = read(QueueRow(row.seq, item.key, row.execution_id, row.kind, row.content))
        except MalformedFrameError:
            continue
        if not isinstance(message, Operation):
            return None
        if message.caller is not None:
            caller = InstanceKey(partition_of(message.caller.instance_id, partition_count), message.caller.instance_id)
            found.append(NewMessage(caller, message.caller.execution_id, MessageKind.EVENT,
                                    write_failure(message, failure_of(item), now)))
    return found
