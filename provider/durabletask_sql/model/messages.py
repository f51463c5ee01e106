"""Rows of the two queues and of the timers, as they are read (with their sequence) and as they are written.

`events` is always a framed list of history events (see `protocol.framing`): one for most messages, several for a start
(ExecutionStarted, carry-over, self-sent events, a re-queued suspend).
"""

from dataclasses import dataclass
from enum import IntEnum

from durabletask_sql.model.instances import InstanceKey


class MessageKind(IntEnum):
    """What a control-queue or timer row is; claims take an instance's rows in this order, then by sequence.

    START sorts before everything else of its instance. AHEAD is for entities: what does not wait behind a lock (calls
    of its holder, releases).
    """

    AHEAD = -1
    START = 0
    EVENT = 1


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be put into the control queue.

    `execution_id` addresses an execution by its own id or by that of its parent's (`InstanceRow.is_addressed_by`); None
    addresses whatever execution runs.
    An entity has no executions: for a message to one it is the sender's (None: a client or an entity).
    """

    key: InstanceKey
    execution_id: str | None
    kind: MessageKind
    events: bytes


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A control-queue row in its owner's memory. `failed` counts its failed deliveries in a row (`partitions.suspects`)."""

    seq: int
    key: InstanceKey
    execution_id: str | None
    kind: MessageKind
    events: bytes
    failed: int = 0


@dataclass(frozen=True, slots=True)
class NewTimer:
    """A message that becomes ready at `fire_at` (microseconds UTC, rounded up).

    A timer, a scheduled start or a delayed signal (whose `execution_id` is the sender's, "" for none).
    """

    key: InstanceKey
    execution_id: str
    kind: MessageKind
    fire_at: int
    events: bytes


@dataclass(frozen=True, slots=True)
class TimerRow:
    """A row of `timers` inside its owner's window."""

    seq: int
    key: InstanceKey
    execution_id: str
    kind: MessageKind
    fire_at: int
    events: bytes
    failed: int = 0


@dataclass(frozen=True, slots=True)
class NewActivity:
    """An activity task to be queued; `event` is the serialized TaskScheduled history event (not framed).

    `version` is the one that workers' filters are compared with (`filters.fold_version`); the event has it as sent.
    """

    key: InstanceKey
    execution_id: str
    task_id: int
    name: str
    version: str | None
    event: bytes


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """An activity task that this host has claimed. `token` is the claim: a completion must carry it.

    `name` and `version` are what workers' filters are compared with.
    """

    seq: int
    key: InstanceKey
    execution_id: str
    task_id: int
    name: str
    version: str | None
    event: bytes
    token: int
    failed: int = 0
