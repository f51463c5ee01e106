"""What stands in an entity's queue, as values, and how each becomes bytes.

Messages are the protocol's own events. Those of SDKs that speak the older form (`legacy`) stay in it on their way, so
that each is answered in the form in which it came. A release that follows a lock request along its chain is framed
with the request behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import DecodeError

from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.model.entities import LockOwner
from durabletask_sql.model.messages import QueueRow, TimerRow
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame, iter_events
from durabletask_sql.turn.entity import legacy


class Caller(NamedTuple):
    """The execution that waits for the result of a call."""

    instance_id: str
    execution_id: str


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation to run. `caller` None: a signal. `event` is the framed native event, as workers get it."""

    request_id: str
    caller: Caller | None
    event: bytes
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class LockRequest:
    """A request that goes from entity to entity in the order of `lock_set`; it is at the one at `position`."""

    owner: LockOwner
    lock_set: tuple[str, ...]
    position: int
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """The end of a critical section. With a `lock_set` it follows the section's request along the chain.

    The owner does not know how far its request has come, so the release must not overtake it.
    """

    owner: LockOwner
    lock_set: tuple[str, ...] = ()
    position: int = 0


Message = Operation | LockRequest | Release


def read(row: QueueRow | TimerRow) -> Message:
    """Return what a row of an entity's queue says. Raises MalformedFrameError for what no entity understands."""
    try:
        found = list(iter_events(row.events))
    except DecodeError as error:
        message = f"it is not a history event: {error}"
        raise MalformedFrameError(message) from error
    sender = row.execution_id or ""
    first = found[0] if found else pb.HistoryEvent()
    match first.WhichOneof("eventType"):
        case "entityOperationSignaled":
            return Operation(first.entityOperationSignaled.requestId, None, row.events)
        case "entityOperationCalled":
            called = first.entityOperationCalled
            return Operation(called.requestId, Caller(called.parentInstanceId.value, called.parentExecutionId.value),
                             row.events)
        case "entityLockRequested":
            return _lock_request(first.entityLockRequested, sender)
        case "entityUnlockSent":
            return _release(first.entityUnlockSent, found[1:], sender)
        case "eventRaised":
            return _legacy_message(row.key.instance_id, first)
        case kind:
            message = f"an entity does not understand {kind or 'an event of an unknown kind'}"
            raise MalformedFrameError(message)


def _lock_request(event: pb.EntityLockRequestedEvent, execution_id: str) -> LockRequest:
    owner = LockOwner(event.parentInstanceId.value, execution_id, event.criticalSectionId)
    return LockRequest(owner, tuple(event.lockSet), event.position)


def _release(event: pb.EntityUnlockSentEvent, following: Sequence[pb.HistoryEvent], execution_id: str) -> Release:
    owner = LockOwner(event.parentInstanceId.value, execution_id, event.criticalSectionId)
    if not following:
        return Release(owner)
    chain = following[0].entityLockRequested
    return Release(owner, tuple(chain.lockSet), chain.position)


def _legacy_message(entity_id: str, event: pb.HistoryEvent) -> Message:
    request = legacy.parse_request(event.eventRaised.name, event.eventRaised.input.value)
    if request.lock_set:
        owner = LockOwner(request.parent, request.parent_execution, request.id)
        return LockRequest(owner, request.lock_set, request.position, legacy=True)
    if request.signal:
        signaled = pb.EntityOperationSignaledEvent(
            requestId=request.id, operation=request.operation, input=events.text(request.input),
            targetInstanceId=events.text(entity_id))
        native = pb.HistoryEvent(eventId=events.INPUT, timestamp=event.timestamp, entityOperationSignaled=signaled)
        return Operation(request.id, None, frame(native), legacy=True)
    called = pb.EntityOperationCalledEvent(
        requestId=request.id, operation=request.operation, input=events.text(request.input),
        parentInstanceId=events.text(request.parent), parentExecutionId=events.text(request.parent_execution),
        targetInstanceId=events.text(entity_id))
    native = pb.HistoryEvent(eventId=events.INPUT, timestamp=event.timestamp, entityOperationCalled=called)
    return Operation(request.id, Caller(request.parent, request.parent_execution), frame(native), legacy=True)


def write_lock_request(request: LockRequest, now: int) -> bytes:
    """Return a lock request as it is queued. The execution that asks is the row's, in both forms."""
    owner = request.owner
    if request.legacy:
        name, text = legacy.format_request(legacy.LegacyRequest(
            id=owner.section_id, parent=owner.instance_id, parent_execution=owner.execution_id,
            lock_set=request.lock_set, position=request.position))
        return frame(events.event_raised(now, name, text))
    return frame(events.entity_lock_requested(now, events.INPUT, pb.EntityLockRequestedEvent(
        criticalSectionId=owner.section_id, lockSet=request.lock_set, position=request.position,
        parentInstanceId=events.text(owner.instance_id))))


def write_release(release: Release, entity_id: str, now: int) -> bytes:
    """Return a release as it is queued for an entity."""
    owner = release.owner
    unlock = frame(events.entity_unlock_sent(now, events.INPUT, pb.EntityUnlockSentEvent(
        criticalSectionId=owner.section_id, parentInstanceId=events.text(owner.instance_id),
        targetInstanceId=events.text(entity_id))))
    if not release.lock_set:
        return unlock
    return unlock + write_lock_request(LockRequest(owner, release.lock_set, release.position), now)


def write_grant(request: LockRequest, now: int) -> bytes:
    """Return what tells the owner that all locks of its critical section are held."""
    section_id = request.owner.section_id
    if request.legacy:
        return frame(events.event_raised(now, section_id, legacy.granted()))
    return frame(events.entity_lock_granted(now, section_id))


def write_result(operation: Operation, output: str | None, now: int) -> bytes:
    """Return the result of a call, for its caller."""
    if operation.legacy:
        return frame(events.event_raised(now, operation.request_id, legacy.completed(output)))
    return frame(events.entity_completed(now, operation.request_id, output))


def write_failure(operation: Operation, failure: pb.TaskFailureDetails, now: int) -> bytes:
    """Return the failure of a call, for its caller."""
    if operation.legacy:
        return frame(events.event_raised(now, operation.request_id, legacy.failed(failure)))
    return frame(events.entity_failed(now, operation.request_id, failure))
