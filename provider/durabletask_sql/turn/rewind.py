"""How a failed execution begins again: a pure function over its history.

What failed, and what was still under way, is taken out, so that the replay asks for it again; what succeeded stays and
is not repeated. A failure after which the same thing was asked for again was dealt with (a retry, say): it stays,
since the replay would otherwise run differently.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from durabletask_sql.errors import FailedPreconditionError
from durabletask_sql.model.checkpoints import HistoryAppend
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer
from durabletask_sql.model.rewinds import RewoundInstance
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame, iter_frames, without
from durabletask_sql.protocol.pb_time import micros_rounded_up
from durabletask_sql.turn.notices import FIRE_AND_FORGET

_REWOUND = pb.HistoryEvent.EXECUTIONREWOUND_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class Cause:
    """Why, when, and into which execution of its parent an instance is rewound (None: its link stays as it is)."""

    reason: str | None
    now: int
    parent_execution_id: str | None = None


@dataclass(frozen=True, slots=True)
class OpenChild:
    """A sub-orchestration whose end the cleaned history does not hold, and which its parent waits for."""

    task_id: int
    body: pb.SubOrchestrationInstanceCreatedEvent


def rewind(row: InstanceRow, history: bytes, cause: Cause, execution_id: str
           ) -> tuple[RewoundInstance, tuple[OpenChild, ...]]:
    """Return what a failed instance becomes, and the sub-orchestrations whose fate its caller has to settle.

    `history` is framed and whole, `execution_id` is the new one. Raises FailedPreconditionError when the instance
    failed with entity locks in its hands, which are gone by now.
    """
    found = [pb.HistoryEvent.FromString(body) for body in iter_frames(history)]
    ledger = _read(found)
    if ledger.holds_locks():
        message = (f"the instance '{row.instance_id}' failed inside a critical section, whose entity locks it has lost: "
                   "it cannot be rewound, start it again instead")
        raise FailedPreconditionError(message)
    removed = ledger.removed()
    parent = row.parent
    if parent is not None and cause.parent_execution_id is not None:
        parent = replace(parent, execution_id=cause.parent_execution_id)
    kept = [_renamed(event, execution_id, cause) for at, event in enumerate(found) if at not in removed]
    kept.append(events.execution_rewound(cause.now, cause.reason, cause.parent_execution_id))
    after = replace(
        row, execution_id=execution_id, row_version=row.row_version + 1, status=_status(kept), updated_at=cause.now,
        completed_at=None, failure=None, trace=None, history_count=len(kept), parent=parent, rewinds=row.rewinds + 1)
    timers = tuple(_armed(after, found[at], cause.now) for at in ledger.timers.open.values())
    children = tuple(OpenChild(event.eventId, event.subOrchestrationInstanceCreated)
                     for event in (found[at] for at in ledger.children.unanswered())
                     if FIRE_AND_FORGET not in event.subOrchestrationInstanceCreated.tags)
    # The history holds ExecutionStarted already, so the list of the start row is empty: it only wakes the instance.
    start = NewMessage(row.key, execution_id, MessageKind.START, b"")
    return RewoundInstance(row.row_version, row.execution_id, after, tuple(_turns(execution_id, kept)), timers,
                           start), children


def shown(row: InstanceRow, history: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return what workers may see of a history, framed like it: some SDKs' crash of a rewind in it."""
    return tuple(without(part, _REWOUND) for part in history) if row.rewinds else tuple(history)


@dataclass(slots=True)
class _Asked:
    """What was asked for, and how it was answered. Keys name the asking, what they are about tells askings alike."""

    open: dict[Hashable, int] = field(default_factory=dict)  # where an asking stands that has no answer yet
    failed: list[tuple[int, int]] = field(default_factory=list)  # where a failed asking and its failure stand
    about: dict[int, tuple[Hashable, Hashable]] = field(default_factory=dict)
    last: dict[Hashable, int] = field(default_factory=dict)

    def ask(self, at: int, key: Hashable, subject: Hashable) -> None:
        self.open[key] = at
        self.about[at] = (("key", key), ("subject", subject))
        self.last.update(dict.fromkeys(self.about[at], at))

    def answer(self, key: Hashable) -> None:
        self.open.pop(key, None)

    def fail(self, at: int, key: Hashable) -> None:
        asked = self.open.pop(key, None)
        if asked is not None:
            self.failed.append((asked, at))

    def final_failures(self) -> list[tuple[int, int]]:
        """Return the failures that were not dealt with: nothing like them was asked for later."""
        return [(asked, failed) for asked, failed in self.failed
                if all(self.last[one] < failed for one in self.about[asked])]

    def unanswered(self) -> list[int]:
        """Return the askings without an answer, those whose failure is taken out included, in their order."""
        return sorted([*self.open.values(), *(asked for asked, _ in self.final_failures())])


@dataclass(slots=True)
class _Ledger:
    """The open and failed work of a history, by kind, and what ends it."""

    tasks: _Asked = field(default_factory=_Asked)
    calls: _Asked = field(default_factory=_Asked)
    timers: _Asked = field(default_factory=_Asked)
    children: _Asked = field(default_factory=_Asked)
    locks: _Asked = field(default_factory=_Asked)
    held: dict[str, int] = field(default_factory=dict)  # by critical section, how many locks are not released
    ends: set[int] = field(default_factory=set)

    def holds_locks(self) -> bool:
        return any(count > 0 for section, count in self.held.items() if section not in self.locks.open)

    def removed(self) -> set[int]:
        """Return where everything stands that the new execution begins without."""
        found = set(self.ends) | set(self.locks.open.values())
        for asked in (self.tasks, self.calls):
            found.update(asked.unanswered())
        for asked in (self.tasks, self.calls, self.children):
            found.update(failed for _, failed in asked.final_failures())
        return found


def _read(found: Sequence[pb.HistoryEvent]) -> _Ledger:
    ledger = _Ledger()
    for at, event in enumerate(found):
        match event.WhichOneof("eventType"):
            case "taskScheduled" | "taskCompleted" | "taskFailed":
                _read_task(ledger.tasks, at, event)
            case "timerCreated":
                ledger.timers.ask(at, event.eventId, at)
            case "timerFired":
                ledger.timers.answer(event.timerFired.timerId)
            case "executionCompleted":
                ledger.ends.add(at)
            case "entityLockRequested" | "entityLockGranted" | "entityUnlockSent":
                _read_lock(ledger, at, event)
            case _:
                _read_child(ledger.children, at, event)
                _read_call(ledger.calls, at, event)
    return ledger


def _read_task(tasks: _Asked, at: int, event: pb.HistoryEvent) -> None:
    if event.HasField("taskScheduled"):
        tasks.ask(at, event.eventId, (event.taskScheduled.name, event.taskScheduled.input.value))
    elif event.HasField("taskCompleted"):
        tasks.answer(event.taskCompleted.taskScheduledId)
    else:
        tasks.fail(at, event.taskFailed.taskScheduledId)


def _read_child(children: _Asked, at: int, event: pb.HistoryEvent) -> None:
    match event.WhichOneof("eventType"):
        case "subOrchestrationInstanceCreated":
            children.ask(at, event.eventId, event.subOrchestrationInstanceCreated.instanceId)
        case "subOrchestrationInstanceCompleted":
            children.answer(event.subOrchestrationInstanceCompleted.taskScheduledId)
        case "subOrchestrationInstanceFailed":
            children.fail(at, event.subOrchestrationInstanceFailed.taskScheduledId)
        case _:
            pass


def _read_call(calls: _Asked, at: int, event: pb.HistoryEvent) -> None:
    match event.WhichOneof("eventType"):
        case "entityOperationCalled":
            call = event.entityOperationCalled
            calls.ask(at, call.requestId, (call.targetInstanceId.value, call.operation, call.input.value))
        case "entityOperationCompleted":
            calls.answer(event.entityOperationCompleted.requestId)
        case "entityOperationFailed":
            calls.fail(at, event.entityOperationFailed.requestId)
        case _:
            pass


def _read_lock(ledger: _Ledger, at: int, event: pb.HistoryEvent) -> None:
    if event.HasField("entityLockRequested"):
        section = event.entityLockRequested.criticalSectionId
        ledger.locks.ask(at, section, section)
        ledger.held[section] = len(set(event.entityLockRequested.lockSet))
    elif event.HasField("entityLockGranted"):
        ledger.locks.answer(event.entityLockGranted.criticalSectionId)
    else:
        section = event.entityUnlockSent.criticalSectionId
        ledger.held[section] = ledger.held.get(section, 0) - 1


def _renamed(event: pb.HistoryEvent, execution_id: str, cause: Cause) -> pb.HistoryEvent:
    """Return an event as the new execution has it: only its start names the execution."""
    if event.HasField("executionStarted"):
        started = event.executionStarted
        started.orchestrationInstance.executionId.value = execution_id
        if cause.parent_execution_id is not None and started.HasField("parentInstance"):
            started.parentInstance.orchestrationInstance.executionId.value = cause.parent_execution_id
    return event


def _status(kept: Iterable[pb.HistoryEvent]) -> Status:
    """Return the status that the cleaned history gives: a suspension that was not resumed holds on."""
    status = Status.RUNNING
    for event in kept:
        if event.HasField("executionSuspended"):
            status = Status.SUSPENDED
        elif event.HasField("executionResumed"):
            status = Status.RUNNING
    return status


def _armed(row: InstanceRow, event: pb.HistoryEvent, now: int) -> NewTimer:
    """Return a timer that had not fired, for the new execution (S-314)."""
    fire_at = event.timerCreated.fireAt
    due = micros_rounded_up(fire_at)
    fired = events.timer_fired(max(due, now), event.eventId, fire_at)
    return NewTimer(row.key, row.execution_id, MessageKind.EVENT, due, frame(fired))


def _turns(execution_id: str, kept: Sequence[pb.HistoryEvent]) -> Iterable[HistoryAppend]:
    """Yield the history as it is stored: a row a turn."""
    first, part = 0, list[bytes]()
    for event in kept:
        if part and event.HasField("orchestratorStarted"):
            yield HistoryAppend(execution_id, first, len(part), b"".join(part))
            first, part = first + len(part), []
        part.append(frame(event))
    yield HistoryAppend(execution_id, first, len(part), b"".join(part))
