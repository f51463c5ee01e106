"""How a turn ends its execution: which completion counts, what the end tells others, and continue-as-new."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from durabletask_sql.model.checkpoints import HistoryAppend, TurnCheckpoint
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame, iter_events
from durabletask_sql.protocol.pb_time import in_range, is_zero, timestamp
from durabletask_sql.turn.effects import Effects, check, refuse
from durabletask_sql.turn.entity.sections import releases
from durabletask_sql.turn.intake import Intake, Termination
from durabletask_sql.turn.names import flaw_of_text
from durabletask_sql.turn.notices import child_ended_notice
from durabletask_sql.turn.start import start_message

_ENDS = {
    pb.ORCHESTRATION_STATUS_COMPLETED: Status.COMPLETED,
    pb.ORCHESTRATION_STATUS_FAILED: Status.FAILED,
    pb.ORCHESTRATION_STATUS_TERMINATED: Status.TERMINATED,
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How an execution ends. `event_id` is the completing action's id."""

    status: Status
    event_id: int
    output: str | None
    failure: pb.TaskFailureDetails | None


def choose(row: InstanceRow, actions: Sequence[pb.OrchestratorAction], terminated: Termination | None
           ) -> pb.OrchestratorAction | None:
    """Return the completion that counts, actions being in order of id; None when there is none.

    Of several the first that is not CONTINUED_AS_NEW wins. CONTINUED_AS_NEW never wins over a termination that was
    delivered in the same turn (S-237).
    """
    found = [action for action in actions if action.HasField("completeOrchestration")]
    for action in found:
        status = action.completeOrchestration.orchestrationStatus
        if status in _ENDS:
            return action
        if status != pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            refuse(row, action, f"an execution cannot end with status {status}")
    return found[0] if found and terminated is None else None


def ending_of(action: pb.OrchestratorAction) -> Ending:
    """Return what a completion other than CONTINUED_AS_NEW says."""
    done = action.completeOrchestration
    status = _ENDS[done.orchestrationStatus]
    output = done.result.value if done.HasField("result") else None
    if status is not Status.FAILED:
        return Ending(status, action.id, output, None)
    failure = done.failureDetails if done.HasField("failureDetails") else pb.TaskFailureDetails(
        errorType="OrchestrationFailed", errorMessage=done.details.value or output or "")
    return Ending(status, action.id, None, failure)


def ending_by_termination(terminated: Termination) -> Ending:
    """Return the end of an execution whose worker did not answer its termination with a completion."""
    return Ending(Status.TERMINATED, events.INPUT, terminated.reason, None)


def finish(base: TurnCheckpoint, effects: Effects, intake: Intake, past: Sequence[bytes],
           ending: Ending) -> TurnCheckpoint:
    """Return the checkpoint that ends the instance."""
    event = events.execution_completed(effects.now, ending.event_id, ending.status, ending.output, ending.failure)
    history = append_history(effects, intake, [*effects.history, frame(event)])
    row = replace(
        base.row, status=ending.status, completed_at=effects.now, history_count=base.row.history_count + 1, sections=(),
        failure=ending.failure.SerializeToString() if ending.failure is not None else None)
    messages, below = [*effects.messages, *_leave_sections(effects)], list[NewMessage]()
    if intake.terminated is not None and ending.status is Status.TERMINATED:
        below = terminate_children(effects, (*past, intake.new_events, *effects.history), intake.terminated.reason)
        if intake.terminated.recurse:
            messages, below = messages + below, []
    notice = child_ended_notice(row, ending.output, effects.now, effects.partition_count)
    if notice is not None:
        messages.append(notice)
    return replace(base, row=row, history=history, messages=tuple(messages), if_recursive=tuple(below),
                   timers=_signals(effects), ended=True, output=ending.output,
                   drop_unclaimed=ending.status is Status.TERMINATED)


def append_history(effects: Effects, intake: Intake, recorded: Sequence[bytes]) -> HistoryAppend:
    """Return the turn's history: the events as they were delivered, then what the actions recorded."""
    return HistoryAppend(effects.row.execution_id, effects.row.history_count, intake.event_count + len(recorded),
                         b"".join((intake.new_events, *recorded)))


def _leave_sections(effects: Effects) -> list[NewMessage]:
    """Return what frees the locks that the execution holds or asks for: nothing of it outlives it (S-344)."""
    return releases(effects.sections, effects.row, effects.now, effects.partition_count)


def _signals(effects: Effects) -> tuple[NewTimer, ...]:
    """Return the delayed signals of a turn: they outlive their sender, its own timers do not."""
    return tuple(timer for timer in effects.timers if timer.key != effects.row.key)


def terminate_children(effects: Effects, history: Iterable[bytes], reason: str | None) -> list[NewMessage]:
    """Return terminations for every sub-orchestration in this history that has not reported its end.

    They are for what this execution has started: the id may be another's, who had it first or was given it since.
    """
    open_children: dict[int, str] = {}
    for part in history:
        for event in iter_events(part):
            match event.WhichOneof("eventType"):
                case "subOrchestrationInstanceCreated":
                    open_children[event.eventId] = event.subOrchestrationInstanceCreated.instanceId
                case "subOrchestrationInstanceCompleted":
                    open_children.pop(event.subOrchestrationInstanceCompleted.taskScheduledId, None)
                case "subOrchestrationInstanceFailed":
                    open_children.pop(event.subOrchestrationInstanceFailed.taskScheduledId, None)
                case _:
                    pass
    event_bytes = frame(events.execution_terminated(effects.now, reason, recurse=True))
    return [NewMessage(effects.key(child), effects.row.execution_id, MessageKind.EVENT, event_bytes)
            for child in open_children.values()]


def continue_as_new(base: TurnCheckpoint, effects: Effects, intake: Intake, past: Sequence[bytes],
                    completion: pb.OrchestratorAction) -> TurnCheckpoint:
    """Return the checkpoint that begins the next execution of the instance.

    Its start row holds ExecutionStarted, what was carried over, what the old execution sent to itself (S-417), and the
    suspension of one that was not resumed (S-244).
    """
    old, done = effects.row, completion.completeOrchestration
    new_input = done.result.value if done.HasField("result") else None
    check(old, completion, flaw_of_text(done.newVersion.value, "version"))
    row = replace(
        base.row, execution_id=effects.new_execution_id(), status=Status.RUNNING, history_count=0,
        version=done.newVersion.value if done.HasField("newVersion") else old.version,
        tags=dict(done.tags) if done.tags else old.tags, scheduled_at=None, trace=None, rewinds=0,
        sections=())
    following = [_carried(old, completion, event, effects.now) for event in done.carryoverEvents] + effects.self_sent
    if base.row.status is Status.SUSPENDED:
        following += _suspension((*past, intake.new_events))
    start = start_message(row, new_input, _trace((*past[:1], intake.new_events)), effects.now, following)
    return replace(base, row=row, messages=(*effects.messages, *_leave_sections(effects), start),
                   timers=_signals(effects), continued_from=old.execution_id, new_input=new_input)


def _carried(row: InstanceRow, completion: pb.OrchestratorAction, event: pb.HistoryEvent, now: int) -> bytes:
    """Return a carried-over event, stamped with the time of the commit where the SDK left it at 1970.

    Only events that were raised outlive an execution: all others speak of what it did.
    """
    if not event.HasField("eventRaised"):
        kind = event.WhichOneof("eventType")
        refuse(row, completion, f"it carries over {kind or 'an event of an unknown kind'}: only eventRaised can be")
    event.DiscardUnknownFields()
    event.timestamp.CopyFrom(timestamp(now) if is_zero(event.timestamp) else in_range(event.timestamp))
    return frame(event)


def _suspension(history: Iterable[bytes]) -> list[bytes]:
    """Return the last suspension of an execution, framed."""
    return [frame(event) for part in history for event in iter_events(part) if event.HasField("executionSuspended")][-1:]


def _trace(history: Iterable[bytes]) -> pb.TraceContext | None:
    """Return the trace context that the execution was started with."""
    for part in history:
        for event in iter_events(part):
            if event.HasField("executionStarted"):
                started = event.executionStarted
                return started.parentTraceContext if started.HasField("parentTraceContext") else None
    return None
