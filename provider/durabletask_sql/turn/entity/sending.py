"""What an orchestration sends to entities: its record in the history and the message, in both forms.

The sender's own identity is the server's to fill in; the set of a lock request is put into one fixed order, so that
no two requests wait for each other, whatever order an SDK uses.
"""

from collections.abc import Iterable
from dataclasses import replace

from durabletask_sql.errors import MalformedFrameError
from durabletask_sql.ids import guid_of, is_guid
from durabletask_sql.model.entities import LockOwner
from durabletask_sql.model.instances import CriticalSection
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.protocol.pb_time import in_range, micros_rounded_up
from durabletask_sql.turn.effects import Effects, check, refuse
from durabletask_sql.turn.entity import legacy
from durabletask_sql.turn.entity.messages import (
    Caller,
    LockRequest,
    Operation,
    write_failure,
    write_grant,
    write_lock_request,
)
from durabletask_sql.turn.entity.sections import holds, unlock
from durabletask_sql.turn.names import flaw_of_entity_id, flaw_of_text


def send_entity_message(effects: Effects, action: pb.OrchestratorAction) -> None:
    """Carry out a sendEntityMessage action."""
    sent = action.sendEntityMessage
    match sent.WhichOneof("EntityMessageType"):
        case "entityOperationSignaled":
            _signal(effects, action, sent.entityOperationSignaled)
        case "entityOperationCalled":
            _call(effects, action, sent.entityOperationCalled)
        case "entityLockRequested":
            asked = sent.entityLockRequested
            asked.parentInstanceId.value = effects.row.instance_id
            effects.history.append(frame(events.entity_lock_requested(effects.now, action.id, asked)))
            _request_locks(effects, action, asked.criticalSectionId, asked.lockSet, is_legacy=False)
        case "entityUnlockSent":
            left = sent.entityUnlockSent
            left.parentInstanceId.value = effects.row.instance_id
            effects.history.append(frame(events.entity_unlock_sent(effects.now, action.id, left)))
            _unlock(effects, left.criticalSectionId, left.targetInstanceId.value)
        case kind:
            refuse(effects.row, action, f"an entity message of the kind {kind!r} is not known to this server")


def _signal(effects: Effects, action: pb.OrchestratorAction, event: pb.EntityOperationSignaledEvent) -> None:
    target = _target(effects, action, event.targetInstanceId.value)
    effects.history.append(frame(events.entity_signaled(effects.now, action.id, event)))
    if not is_guid(event.requestId):
        event.requestId = guid_of(effects.new_execution_id())  # nobody is answered by it, but .NET workers parse it
    due = None
    if event.HasField("scheduledTime"):
        event.scheduledTime.CopyFrom(in_range(event.scheduledTime))
        due = micros_rounded_up(event.scheduledTime)
    message = frame(events.entity_signaled(effects.now, events.INPUT, event))
    _post(effects, target, MessageKind.EVENT, message, due)


def _call(effects: Effects, action: pb.OrchestratorAction, event: pb.EntityOperationCalledEvent) -> None:
    row, target = effects.row, event.targetInstanceId.value
    event.parentInstanceId.value, event.parentExecutionId.value = row.instance_id, row.execution_id
    effects.history.append(frame(events.entity_called(effects.now, action.id, event)))
    failure = _why_not(target, event.requestId)
    if failure is not None:
        effects.answer(events.entity_failed(effects.now, event.requestId, failure))
        return
    event.ClearField("scheduledTime")
    _post(effects, target, _kind(effects, target), frame(events.entity_called(effects.now, events.INPUT, event)))


def _request_locks(effects: Effects, action: pb.OrchestratorAction, section_id: str, wanted: Iterable[str], *,
                   is_legacy: bool) -> None:
    """Ask for the locks of all these entities: the request visits them in the one order that all requests have."""
    lock_set = tuple(sorted(set(wanted)))
    for entity_id in lock_set:
        _target(effects, action, entity_id)
    check(effects.row, action, flaw_of_text(section_id, "id of the critical section"))
    owner = LockOwner(effects.row.instance_id, effects.row.execution_id, section_id)
    request = LockRequest(owner, lock_set, 0, is_legacy)
    if not lock_set:
        effects.messages.append(NewMessage(effects.row.key, owner.execution_id, MessageKind.EVENT,
                                           write_grant(request, effects.now)))
        return
    effects.sections.append(CriticalSection(section_id, lock_set))
    _post(effects, lock_set[0], MessageKind.EVENT, write_lock_request(request, effects.now))


def _unlock(effects: Effects, section_id: str, target: str) -> None:
    effects.messages += unlock(effects.sections, effects.row, section_id, target, effects.now, effects.partition_count)


def send_legacy_message(effects: Effects, action: pb.OrchestratorAction) -> None:
    """Carry out a sendEvent action whose target is an entity: the older form of all of the above."""
    sent, row = action.sendEvent, effects.row
    target = _target(effects, action, sent.instance.instanceId)
    effects.history.append(frame(events.event_sent(effects.now, action.id, sent)))
    try:
        if sent.name == legacy.RELEASE:
            _unlock(effects, legacy.parse_release(sent.data.value), target)
            return
        due, request = legacy.due_time(sent.name), legacy.parse_request(sent.name, sent.data.value)
    except MalformedFrameError as error:
        refuse(row, action, f"the message {sent.name!r} to entity '{target}' cannot be read: {error}")
    if request.lock_set:
        _request_locks(effects, action, request.id, request.lock_set, is_legacy=True)
        return
    request = replace(request, parent=row.instance_id, parent_execution=row.execution_id)
    failure = _why_not(target, request.id)
    if failure is not None and not request.signal:
        operation = Operation(request.id, Caller(row.instance_id, row.execution_id), b"", legacy=True)
        effects.messages.append(NewMessage(row.key, row.execution_id, MessageKind.EVENT,
                                           write_failure(operation, failure, effects.now)))
        return
    if failure is not None:
        request = replace(request, id=guid_of(effects.new_execution_id()))
    name, text = legacy.format_request(request)
    kind = MessageKind.EVENT if request.signal else _kind(effects, target)
    _post(effects, target, kind, frame(events.event_raised(effects.now, name, text)), due)


def _post(effects: Effects, target: str, kind: MessageKind, message: bytes, due: int | None = None) -> None:
    """Queue a message for an entity, delayed if it is due later."""
    key, sender = effects.key(target), effects.row.execution_id
    if due is None or due <= effects.now:
        effects.messages.append(NewMessage(key, sender, kind, message))
    else:
        effects.timers.append(NewTimer(key, sender, kind, due, message))


def _kind(effects: Effects, target: str) -> MessageKind:
    """A call of the lock's holder does not wait behind the lock."""
    return MessageKind.AHEAD if holds(effects.sections, target) else MessageKind.EVENT


def _target(effects: Effects, action: pb.OrchestratorAction, entity_id: str) -> str:
    check(effects.row, action, flaw_of_entity_id(entity_id))
    return entity_id


def _why_not(target: str, request_id: str) -> pb.TaskFailureDetails | None:
    """Return why a call cannot be sent, for its caller; None when it can."""
    flaw = flaw_of_entity_id(target)
    if flaw is not None:
        return pb.TaskFailureDetails(errorType="InvalidEntityId", isNonRetriable=True, errorMessage=flaw)
    if not is_guid(request_id):
        return pb.TaskFailureDetails(errorType="InvalidRequestId", isNonRetriable=True, errorMessage=(
            f"the request id {request_id!r} of the call to '{target}' is not a GUID"))
    return None
