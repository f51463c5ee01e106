"""What each action of an orchestrator's answer records and sends. Completion is in `completion`."""

from durabletask_sql.ids import is_entity
from durabletask_sql.model.filters import fold_version
from durabletask_sql.model.messages import MessageKind, NewActivity, NewMessage, NewTimer
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.protocol.pb_time import in_range, micros_rounded_up
from durabletask_sql.turn.children import new_child
from durabletask_sql.turn.effects import Effects, check, refuse
from durabletask_sql.turn.entity.sending import send_entity_message, send_legacy_message
from durabletask_sql.turn.names import flaw_of_name, flaw_of_text
from durabletask_sql.turn.notices import FIRE_AND_FORGET


def record(effects: Effects, action: pb.OrchestratorAction) -> None:
    """Carry out one action. Raises InvalidCompletionError for one that this server cannot carry out."""
    kind = action.WhichOneof("orchestratorActionType")
    match kind:
        case "scheduleTask":
            _schedule_task(effects, action)
        case "createTimer":
            _create_timer(effects, action)
        case "createSubOrchestration":
            _create_child(effects, action)
        case "sendEvent" if is_entity(action.sendEvent.instance.instanceId):
            send_legacy_message(effects, action)
        case "sendEvent":
            _send_event(effects, action)
        case "sendEntityMessage":
            send_entity_message(effects, action)
        case "terminateOrchestration":
            _terminate(effects, action)
        case _:
            refuse(effects.row, action, f"action {kind or 'of an unknown kind'} is not supported by this server")


def _schedule_task(effects: Effects, action: pb.OrchestratorAction) -> None:
    task = action.scheduleTask
    check(effects.row, action, flaw_of_name(task.name, "activity name"))
    check(effects.row, action, flaw_of_text(task.version.value, "version"))
    event = events.task_scheduled(effects.now, action.id, task)
    effects.history.append(frame(event))
    effects.activities.append(NewActivity(
        effects.row.key, effects.row.execution_id, action.id, task.name,
        fold_version(task.version.value if task.HasField("version") else effects.row.version),
        event.SerializeToString()))


def _create_timer(effects: Effects, action: pb.OrchestratorAction) -> None:
    fire_at = in_range(action.createTimer.fireAt)
    effects.history.append(frame(events.timer_created(effects.now, action.id, fire_at)))
    due = micros_rounded_up(fire_at)
    fired = events.timer_fired(max(due, effects.now), action.id, fire_at)
    effects.timers.append(NewTimer(effects.row.key, effects.row.execution_id, MessageKind.EVENT, due, frame(fired)))


def _send_event(effects: Effects, action: pb.OrchestratorAction) -> None:
    sent = action.sendEvent
    target = sent.instance.instanceId
    check(effects.row, action, flaw_of_name(target, "target instance id"))
    effects.history.append(frame(events.event_sent(effects.now, action.id, sent)))
    event = frame(events.event_raised(effects.now, sent.name, sent.data.value if sent.HasField("data") else None))
    if target == effects.row.instance_id:
        effects.self_sent.append(event)
    else:
        effects.messages.append(NewMessage(effects.key(target), None, MessageKind.EVENT, event))


def _terminate(effects: Effects, action: pb.OrchestratorAction) -> None:
    asked = action.terminateOrchestration
    check(effects.row, action, flaw_of_name(asked.instanceId, "id of the instance to terminate"))
    if is_entity(asked.instanceId):
        return  # an entity has nothing that could be terminated (S-334)
    reason = asked.reason.value if asked.HasField("reason") else None
    event = events.execution_terminated(effects.now, reason, recurse=asked.recurse)
    effects.messages.append(NewMessage(effects.key(asked.instanceId), None, MessageKind.EVENT, frame(event)))


def _create_child(effects: Effects, action: pb.OrchestratorAction) -> None:
    """Record a sub-orchestration and make its instance; tags of the parent are inherited (S-098)."""
    asked, parent = action.createSubOrchestration, effects.row
    check(effects.row, action, flaw_of_name(asked.name, "sub-orchestration name"))
    child_id = asked.instanceId or f"{parent.instance_id}:{action.id:04x}"
    check(effects.row, action, flaw_of_name(child_id, "sub-orchestration id"))
    check(effects.row, action, flaw_of_text(asked.version.value, "version"))
    tags = {name: value for name, value in parent.tags.items() if name != FIRE_AND_FORGET} | dict(asked.tags)
    body = pb.SubOrchestrationInstanceCreatedEvent(instanceId=child_id, name=asked.name, tags=tags)
    for name in ("version", "input", "parentTraceContext"):
        if asked.HasField(name):
            getattr(body, name).CopyFrom(getattr(asked, name))
    effects.history.append(frame(events.child_created(effects.now, action.id, body)))
    if is_entity(child_id):
        details = pb.TaskFailureDetails(
            errorType="InvalidInstanceId", isNonRetriable=True,
            errorMessage=f"Sub-orchestration '{child_id}' was not started: ids that begin with '@' are entities'.")
        effects.answer(events.child_failed(effects.now, action.id, details))
        return
    effects.children.append(new_child(parent, action.id, body, effects.new_execution_id(), effects.now,
                                      effects.partition_count))
