"""What the actions of one turn add up to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.ids import partition_of
from durabletask_sql.model.checkpoints import NewChild
from durabletask_sql.model.instances import CriticalSection, InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, NewActivity, NewMessage, NewTimer
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame


@dataclass(slots=True)
class Effects:
    """What the actions of one turn add up to.

    `self_sent` are events that the instance sent to itself; `sections` its open critical sections.
    """

    row: InstanceRow
    now: int
    new_execution_id: Callable[[], str]
    partition_count: int
    sections: list[CriticalSection] = field(default_factory=list)
    history: list[bytes] = field(default_factory=list)
    messages: list[NewMessage] = field(default_factory=list)
    self_sent: list[bytes] = field(default_factory=list)
    timers: list[NewTimer] = field(default_factory=list)
    activities: list[NewActivity] = field(default_factory=list)
    children: list[NewChild] = field(default_factory=list)

    def key(self, instance_id: str) -> InstanceKey:
        """Return where an instance lives."""
        return InstanceKey(partition_of(instance_id, self.partition_count), instance_id)

    def answer(self, event: pb.HistoryEvent) -> None:
        """Send an event to the very execution whose turn this is: the failure of something that it asked for."""
        self.messages.append(NewMessage(self.row.key, self.row.execution_id, MessageKind.EVENT, frame(event)))


def refuse(row: InstanceRow, action: pb.OrchestratorAction, why: str) -> NoReturn:
    """Raise InvalidCompletionError naming instance and action."""
    message = f"orchestration '{row.instance_id}' ({row.name}), action {action.id}: {why}"
    raise InvalidCompletionError(message)


def check(row: InstanceRow, action: pb.OrchestratorAction, flaw: str | None) -> None:
    """Refuse an action because of a flaw in a name, a version or an id."""
    if flaw is not None:
        refuse(row, action, flaw)
