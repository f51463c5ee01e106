"""Constructors of history events.

Optional texts keep their presence: None leaves the field unset, "" sets it. Inputs (everything that is delivered to an
orchestrator) have event id -1; events that record an action have the action's id. `now` is microseconds UTC.

Of messages that clients and workers sent, only known fields become part of an event: others may nest groups deeper than
readers follow once the event sits inside a work item, which would end the stream of every worker that is sent it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.pb_time import timestamp

INPUT = -1


@dataclass(frozen=True, slots=True)
class Start:
    """What an ExecutionStarted event carries. `scheduled_at` in microseconds UTC."""

    name: str
    instance_id: str
    execution_id: str
    version: str | None = None
    input: str | None = None
    parent: pb.ParentInstanceInfo | None = None
    scheduled_at: int | None = None
    tags: Mapping[str, str] | None = None
    trace: pb.TraceContext | None = None


def text(value: str | None) -> StringValue | None:
    """Return an optional text as the wire has it."""
    return None if value is None else StringValue(value=value)


def orchestrator_started(now: int) -> pb.HistoryEvent:
    """The beginning of a turn; its timestamp is the orchestration's clock."""
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now), orchestratorStarted=pb.OrchestratorStartedEvent())


def execution_started(now: int, start: Start) -> pb.HistoryEvent:
    """The beginning of an execution."""
    body = pb.ExecutionStartedEvent(
        name=start.name, version=text(start.version), input=text(start.input),
        orchestrationInstance=pb.OrchestrationInstance(instanceId=start.instance_id,
                                                       executionId=text(start.execution_id)),
        parentInstance=start.parent,
        scheduledStartTimestamp=None if start.scheduled_at is None else timestamp(start.scheduled_at),
        parentTraceContext=start.trace, tags=start.tags,
    )
    body.DiscardUnknownFields()
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now), executionStarted=body)


def execution_completed(now: int, event_id: int, status: int, result: str | None,
                        failure: pb.TaskFailureDetails | None) -> pb.HistoryEvent:
    """The end of an execution; `status` is the wire's OrchestrationStatus."""
    body = pb.ExecutionCompletedEvent(orchestrationStatus=pb.OrchestrationStatus.Name(status),
                                      result=text(result), failureDetails=failure)
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), executionCompleted=body)


def execution_terminated(now: int, reason: str | None, *, recurse: bool) -> pb.HistoryEvent:
    """A termination; `reason` becomes the output."""
    body = pb.ExecutionTerminatedEvent(input=text(reason), recurse=recurse)
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now), executionTerminated=body)


def execution_suspended(now: int, reason: str | None) -> pb.HistoryEvent:
    """A suspension."""
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now),
                           executionSuspended=pb.ExecutionSuspendedEvent(input=text(reason)))


def execution_resumed(now: int, reason: str | None) -> pb.HistoryEvent:
    """The end of a suspension."""
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now),
                           executionResumed=pb.ExecutionResumedEvent(input=text(reason)))


def execution_rewound(now: int, reason: str | None, parent_execution_id: str | None) -> pb.HistoryEvent:
    """A rewind; for a sub-orchestration it names the execution of its parent that waits for it now."""
    body = pb.ExecutionRewoundEvent(reason=text(reason), parentExecutionId=text(parent_execution_id))
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now), executionRewound=body)


def event_raised(now: int, name: str, data: str | None) -> pb.HistoryEvent:
    """An external event."""
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now),
                           eventRaised=pb.EventRaisedEvent(name=name, input=text(data)))


def event_sent(now: int, event_id: int, action: pb.SendEventAction) -> pb.HistoryEvent:
    """The record of an event that the orchestrator sent."""
    body = pb.EventSentEvent(instanceId=action.instance.instanceId, name=action.name)
    if action.HasField("data"):
        body.input.value = action.data.value
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), eventSent=body)


def task_scheduled(now: int, event_id: int, action: pb.ScheduleTaskAction) -> pb.HistoryEvent:
    """The record of an activity that the orchestrator scheduled."""
    body = pb.TaskScheduledEvent(name=action.name, tags=action.tags)
    for field in ("version", "input", "parentTraceContext"):
        if action.HasField(field):
            getattr(body, field).CopyFrom(getattr(action, field))
    body.DiscardUnknownFields()
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), taskScheduled=body)


def task_completed(now: int, task_id: int, result: str | None) -> pb.HistoryEvent:
    """The result of an activity."""
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now),
                           taskCompleted=pb.TaskCompletedEvent(taskScheduledId=task_id, result=text(result)))


def task_failed(now: int, task_id: int, failure: pb.TaskFailureDetails) -> pb.HistoryEvent:
    """The failure of an activity, its details unchanged."""
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now),
                           taskFailed=pb.TaskFailedEvent(taskScheduledId=task_id, failureDetails=failure))


def timer_created(now: int, event_id: int, fire_at: Timestamp) -> pb.HistoryEvent:
    """The record of a timer that the orchestrator created."""
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), timerCreated=pb.TimerCreatedEvent(fireAt=fire_at))


def timer_fired(now: int, timer_id: int, fire_at: Timestamp) -> pb.HistoryEvent:
    """The firing of a timer; `fire_at` keeps its full precision."""
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now),
                           timerFired=pb.TimerFiredEvent(timerId=timer_id, fireAt=fire_at))


def child_created(now: int, event_id: int, body: pb.SubOrchestrationInstanceCreatedEvent) -> pb.HistoryEvent:
    """The record of a sub-orchestration that the orchestrator started."""
    body.DiscardUnknownFields()
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), subOrchestrationInstanceCreated=body)


def child_completed(now: int, task_id: int, result: str | None) -> pb.HistoryEvent:
    """The result of a sub-orchestration."""
    body = pb.SubOrchestrationInstanceCompletedEvent(taskScheduledId=task_id, result=text(result))
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now), subOrchestrationInstanceCompleted=body)


def child_failed(now: int, task_id: int, failure: pb.TaskFailureDetails) -> pb.HistoryEvent:
    """The failure of a sub-orchestration, its details unchanged."""
    body = pb.SubOrchestrationInstanceFailedEvent(taskScheduledId=task_id, failureDetails=failure)
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now), subOrchestrationInstanceFailed=body)


def entity_signaled(now: int, event_id: int, body: pb.EntityOperationSignaledEvent) -> pb.HistoryEvent:
    """A signal to an entity: the sender's record of it, and the message."""
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), entityOperationSignaled=body)


def entity_called(now: int, event_id: int, body: pb.EntityOperationCalledEvent) -> pb.HistoryEvent:
    """A call to an entity: the caller's record of it, and the message."""
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), entityOperationCalled=body)


def entity_completed(now: int, request_id: str, output: str | None) -> pb.HistoryEvent:
    """The result of a call to an entity."""
    body = pb.EntityOperationCompletedEvent(requestId=request_id, output=text(output))
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now), entityOperationCompleted=body)


def entity_failed(now: int, request_id: str, failure: pb.TaskFailureDetails) -> pb.HistoryEvent:
    """The failure of a call to an entity, its details unchanged."""
    body = pb.EntityOperationFailedEvent(requestId=request_id, failureDetails=failure)
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now), entityOperationFailed=body)


def entity_lock_requested(now: int, event_id: int, body: pb.EntityLockRequestedEvent) -> pb.HistoryEvent:
    """A request for the locks of entities: the asker's record of it, and the message."""
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), entityLockRequested=body)


def entity_lock_granted(now: int, section_id: str) -> pb.HistoryEvent:
    """The locks of a critical section are all held."""
    return pb.HistoryEvent(eventId=INPUT, timestamp=timestamp(now),
                           entityLockGranted=pb.EntityLockGrantedEvent(criticalSectionId=section_id))


def entity_unlock_sent(now: int, event_id: int, body: pb.EntityUnlockSentEvent) -> pb.HistoryEvent:
    """The release of an entity's lock: the holder's record of it, and the message."""
    return pb.HistoryEvent(eventId=event_id, timestamp=timestamp(now), entityUnlockSent=body)
