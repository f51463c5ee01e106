"""History events and orchestrator's actions as plain tuples, in which script and model speak; and their wire forms.

Times and trace contexts are left out: what a history *means* is compared, not how it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.protocol.pb_time import micros, timestamp

Word = tuple[Any, ...]

COMPLETED, FAILED, TERMINATED, AGAIN = 1, 3, 5, 2


def text(message: Any, field: str = "input") -> str | None:
    """Return an optional text."""
    return getattr(message, field).value if message.HasField(field) else None


def _failure(details: pb.TaskFailureDetails) -> Word:
    return details.errorType, details.errorMessage


def _started(_: int, e: pb.ExecutionStartedEvent) -> Word:
    parent = e.parentInstance if e.HasField("parentInstance") else None
    return ("started", e.name, text(e, "version"), text(e),
            parent and (parent.orchestrationInstance.instanceId, parent.taskScheduledId))


def _completed(_: int, e: pb.ExecutionCompletedEvent) -> Word:
    return ("completed", e.orchestrationStatus, text(e, "result"),
            _failure(e.failureDetails) if e.HasField("failureDetails") else None)


_WORDS: dict[str, Callable[[int, Any], Word]] = {
    "entityOperationSignaled": lambda n, e: ("signal", n, text(e, "targetInstanceId"), e.operation, text(e),
                                             micros(e.scheduledTime) if e.HasField("scheduledTime") else None),
    "entityOperationCalled": lambda n, e: ("call", n, text(e, "targetInstanceId"), e.operation, text(e), e.requestId),
    "entityOperationCompleted": lambda _, e: ("call done", e.requestId, text(e, "output")),
    "entityOperationFailed": lambda _, e: ("call failed", e.requestId, e.failureDetails.errorType),
    "entityLockRequested": lambda n, e: ("lock", n, e.criticalSectionId, tuple(e.lockSet)),
    "entityLockGranted": lambda _, e: ("granted", e.criticalSectionId),
    "entityUnlockSent": lambda n, e: ("unlock", n, e.criticalSectionId, text(e, "targetInstanceId")),
    "executionRewound": lambda _, e: ("rewound", text(e, "reason")),
    "orchestratorStarted": lambda *_: ("turn",),
    "executionStarted": _started,
    "executionCompleted": _completed,
    "executionTerminated": lambda _, e: ("terminated", text(e), e.recurse),
    "executionSuspended": lambda _, e: ("suspended", text(e)),
    "executionResumed": lambda _, e: ("resumed", text(e)),
    "eventRaised": lambda _, e: ("event", e.name, text(e)),
    "eventSent": lambda n, e: ("tell", n, e.instanceId, e.name, text(e)),
    "taskScheduled": lambda n, e: ("task", n, e.name, text(e)),
    "taskCompleted": lambda _, e: ("task done", e.taskScheduledId, text(e, "result")),
    "taskFailed": lambda _, e: ("task failed", e.taskScheduledId, *_failure(e.failureDetails)),
    "timerCreated": lambda n, e: ("timer", n, micros(e.fireAt)),
    "timerFired": lambda _, e: ("timer fired", e.timerId),
    "subOrchestrationInstanceCreated": lambda n, e: ("child", n, e.name, e.instanceId, text(e)),
    "subOrchestrationInstanceCompleted": lambda _, e: ("child done", e.taskScheduledId, text(e, "result")),
    "subOrchestrationInstanceFailed": lambda _, e: ("child failed", e.taskScheduledId, e.failureDetails.errorType),
}


def word(event: pb.HistoryEvent) -> Word:
    """Return what an event says."""
    kind = event.WhichOneof("eventType")
    return _WORDS[kind](event.eventId, getattr(event, kind))


def message(framed: bytes) -> Word:
    """Return what a message in an entity's queue says."""
    said, *following = words([framed])
    match said[0]:
        case "signal" | "call":
            return ("operation", *said[3:5])
        case "lock":
            return said[0], said[2]
        case _:
            return "release", said[2], *(("along its chain",) if following else ())


def words(framed: Iterable[bytes]) -> list[Word]:
    """Return what framed lists of events say."""
    return [word(event) for part in framed for event in iter_events(part)]


def turn_time(framed: bytes) -> int:
    """Return the orchestration's time in a turn whose new events these are."""
    return micros(next(iter(iter_events(framed))).timestamp)


def action(said: Word) -> pb.OrchestratorAction:
    """Return an action as the wire has it."""
    kind, number, *rest = said
    made = pb.OrchestratorAction(id=number)
    match kind, rest:
        case "task", (name, data):
            made.scheduleTask.name = name
            made.scheduleTask.input.value = data
        case "timer", (due,):
            made.createTimer.fireAt.CopyFrom(timestamp(due))
        case "child", (name, instance, data):
            made.createSubOrchestration.name = name
            made.createSubOrchestration.instanceId = instance
            made.createSubOrchestration.input.value = data
        case "tell", (target, name, data):
            made.sendEvent.instance.instanceId = target
            made.sendEvent.name = name
            made.sendEvent.data.value = data
        case "kill", (target, reason, recurse):
            made.terminateOrchestration.instanceId = target
            made.terminateOrchestration.reason.value = reason
            made.terminateOrchestration.recurse = recurse
        case "signal" | "call" | "lock" | "unlock", _:
            _tell_entity(made.sendEntityMessage, kind, rest)
        case _:
            _end(made.completeOrchestration, kind, rest)
    return made


def _tell_entity(made: pb.SendEntityMessageAction, kind: str, rest: list[Any]) -> None:
    match kind, rest:
        case "signal", (target, name, data, due):
            signal = made.entityOperationSignaled
            signal.targetInstanceId.value, signal.operation, signal.input.value = target, name, data
            if due is not None:
                signal.scheduledTime.CopyFrom(timestamp(due))
        case "call", (target, name, data, request):
            call = made.entityOperationCalled
            call.targetInstanceId.value, call.operation, call.input.value, call.requestId = target, name, data, request
        case "lock", (section, wanted):
            made.entityLockRequested.criticalSectionId = section
            made.entityLockRequested.lockSet.extend(wanted)
        case "unlock", (section, target):
            made.entityUnlockSent.criticalSectionId, made.entityUnlockSent.targetInstanceId.value = section, target


def _end(done: pb.CompleteOrchestrationAction, kind: str, rest: list[Any]) -> None:
    match kind, rest:
        case "complete", (status, data, failure):
            done.orchestrationStatus = status
            if data is not None:
                done.result.value = data
            if failure is not None:
                done.failureDetails.errorType, done.failureDetails.errorMessage = failure
        case "again", (data, carried):
            done.orchestrationStatus = AGAIN
            done.result.value = data
            for _, name, value in carried:
                event = done.carryoverEvents.add(eventId=-1)
                event.eventRaised.name = name
                event.eventRaised.input.value = value
