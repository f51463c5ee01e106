"""What the next step of an entity is: operations for a worker, or something that the host does by itself (S-332).

Operations run in the order of the queue, up to a lock request, which waits for everything before it and holds up
everything behind it. While the lock is held only what its holder sends AHEAD runs. Locks need no worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.ids import partition_of
from durabletask_sql.model.checkpoints import EntityCheckpoint, Quarantine
from durabletask_sql.model.entities import EntityRow, LockOwner
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, NewMessage, QueueRow, TimerRow
from durabletask_sql.turn.entity.messages import (
    Caller,
    LockRequest,
    Message,
    Operation,
    Release,
    read,
    write_grant,
    write_lock_request,
)
from durabletask_sql.turn.entity.sections import release_message

Row = QueueRow | TimerRow
Unreadable = dict[Row, str]  # with why


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much one batch takes; at least one operation, however large."""

    operations: int = 1_000
    bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Inbox:
    """What is known of an entity: its row, and its messages in memory in order of sequence.

    From sequence `bound` on messages may be missing (None: they are all here), those AHEAD excepted. `timers` are
    delayed signals that are due.
    """

    key: InstanceKey
    row: EntityRow | None
    rows: Sequence[QueueRow]
    bound: int | None = None
    timers: Sequence[TimerRow] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Operations for a worker, each with the row that it came in."""

    operations: tuple[tuple[Row, Operation], ...]

    @property
    def events(self) -> bytes:
        """The operations, framed."""
        return b"".join(operation.event for _, operation in self.operations)


Step = Batch | EntityCheckpoint | Quarantine


def take(inbox: Inbox, now: int, limits: BatchLimits, partition_count: int) -> Step | None:
    """Return the next step of an entity; None when nothing of what is here can go on."""
    unreadable: Unreadable = {}
    ahead = [(row, message) for row in inbox.rows if row.kind is MessageKind.AHEAD
             if (message := _read(row, unreadable)) is not None]
    step = _Control(inbox, now, partition_count)
    found: Step | None = step.run(ahead, unreadable)
    if found is None and step.lock is not None:
        found = _fill([one for one in ahead if _is_holders(one[1], step.lock)], limits)
    elif found is None:
        found = _next_in_line(inbox, limits, step, unreadable)
    if found is None and unreadable:
        timers = tuple(row.seq for row in inbox.timers if row in unreadable)
        seqs = tuple(row.seq for row in inbox.rows if row in unreadable)
        return Quarantine(inbox.key, next(iter(unreadable.values())), seqs, timers)
    return found


def _read(row: Row, unreadable: Unreadable) -> Message | None:
    try:
        return read(row)
    except MalformedFrameError as error:
        unreadable[row] = str(error)
        return None


def _is_holders(message: Message, lock: LockOwner) -> bool:
    return isinstance(message, Operation) and message.caller == Caller(lock.instance_id, lock.execution_id)


def _next_in_line(inbox: Inbox, limits: BatchLimits, step: "_Control", unreadable: Unreadable) -> Step | None:
    """Operations up to a lock request, or the lock request if it is the first."""
    line: list[Row] = [row for row in inbox.rows if inbox.bound is None or row.seq < inbox.bound]
    if inbox.bound is None:
        due = list(inbox.timers)
        due.sort(key=lambda timer: (timer.fire_at, timer.seq))
        line += due
    batch: list[tuple[Row, Operation]] = []
    for row in line:
        match _read(row, unreadable):
            case Operation() as operation:
                batch.append((row, operation))
                if len(batch) > limits.operations:
                    break
            case LockRequest() as request if not batch:
                assert isinstance(row, QueueRow)
                return step.grant(row, request)
            case LockRequest():
                break
            case _:
                pass
    return _fill(batch, limits)


def _fill(waiting: Sequence[tuple[Row, Message]], limits: BatchLimits) -> Batch | None:
    batch: list[tuple[Row, Operation]] = []
    size = 0
    for row, operation in waiting:
        assert isinstance(operation, Operation)
        size += len(operation.event)
        if batch and (len(batch) == limits.operations or size > limits.bytes):
            break
        batch.append((row, operation))
    return Batch(tuple(batch)) if batch else None


class _Control:
    """What the host does by itself: releases, cancellations, grants. `lock` is the lock as it stands meanwhile."""

    def __init__(self, inbox: Inbox, now: int, partition_count: int) -> None:
        self._inbox = inbox
        self._now = now
        self._partition_count = partition_count
        self._consumed: list[int] = []
        self._messages: list[NewMessage] = []
        self.lock = inbox.row.lock if inbox.row is not None else None

    def run(self, ahead: Sequence[tuple[QueueRow, Message]], unreadable: Unreadable) -> EntityCheckpoint | None:
        """Carry out every release that has come; return the checkpoint, None when there was nothing to do.

        A release waits until the calls that its owner sent before it have run, a cancellation of a request that may
        be among the messages which are not here waits for them.
        """
        requests: dict[LockOwner, QueueRow] | None = None
        has_calls = False
        for row, message in ahead:
            if not isinstance(message, Release):
                has_calls |= self.lock is not None and _is_holders(message, self.lock)
            elif message.owner == self.lock:
                if not has_calls:
                    self.lock = None
                    self._end(row, message)
            elif not message.lock_set:
                self._consumed.append(row.seq)  # the lock is not this section's any more
            else:
                if requests is None:
                    requests = self._queued(unreadable)
                queued = requests.get(message.owner)
                if queued is not None:
                    self._consumed += [row.seq, queued.seq]
                elif self._inbox.bound is None:
                    self._end(row, message)
        return self._checkpoint() if self._consumed else None

    def grant(self, row: QueueRow, request: LockRequest) -> EntityCheckpoint:
        """Give the lock to the section whose request is first in line, and send the request on, or the grant."""
        self.lock = request.owner
        self._consumed.append(row.seq)
        following, now = request.position + 1, self._now
        if following < len(request.lock_set):
            target = request.lock_set[following]
            self._messages.append(NewMessage(
                self._key(target), request.owner.execution_id, MessageKind.EVENT,
                write_lock_request(replace(request, position=following), now)))
        else:
            owner = request.owner
            self._messages.append(NewMessage(self._key(owner.instance_id), owner.execution_id, MessageKind.EVENT,
                                             write_grant(request, now)))
        return self._checkpoint()

    def _end(self, row: QueueRow, release: Release) -> None:
        """Take a release off the queue, and send it on along its chain."""
        self._consumed.append(row.seq)
        following = release.position + 1
        if following < len(release.lock_set):
            self._messages.append(release_message(
                release.lock_set[following], replace(release, position=following), self._now, self._partition_count))

    def _queued(self, unreadable: Unreadable) -> dict[LockOwner, QueueRow]:
        found: dict[LockOwner, QueueRow] = {}
        for row in self._inbox.rows:
            if row.kind is not MessageKind.AHEAD and isinstance(message := _read(row, unreadable), LockRequest):
                found[message.owner] = row
        return found

    def _checkpoint(self) -> EntityCheckpoint:
        inbox = self._inbox
        row = after(inbox.key, inbox.row, inbox.row.state if inbox.row is not None else None, self.lock, self._now)
        return EntityCheckpoint(inbox.key, version(inbox.row), row, tuple(sorted(self._consumed)),
                                messages=tuple(self._messages))

    def _key(self, instance_id: str) -> InstanceKey:
        return InstanceKey(partition_of(instance_id, self._partition_count), instance_id)


def version(row: EntityRow | None) -> int:
    """Return the fence of an entity as it stands."""
    return row.row_version if row is not None else 0


def after(key: InstanceKey, row: EntityRow | None, state: str | None, lock: LockOwner | None, now: int
          ) -> EntityRow | None:
    """Return the row after a step; None when the entity has neither state nor lock: it is gone then (S-353)."""
    if state is None and lock is None:
        return None
    return EntityRow(*key, version(row) + 1, state, now, lock)
