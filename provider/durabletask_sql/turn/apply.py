"""From an orchestrator's answer to the checkpoint that commits its turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from durabletask_sql.model.checkpoints import TurnCheckpoint
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.turn.actions import record
from durabletask_sql.turn.completion import (
    append_history,
    choose,
    continue_as_new,
    ending_by_termination,
    ending_of,
    finish,
)
from durabletask_sql.turn.effects import Effects, refuse
from durabletask_sql.turn.entity.sections import with_grants
from durabletask_sql.turn.intake import Intake


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that was run: the instance before it, its history (framed), and what the turn saw."""

    row: InstanceRow
    past: tuple[bytes, ...]
    intake: Intake


def apply(turn: Turn, actions: Sequence[pb.OrchestratorAction], answer: pb.OrchestratorResponse, now: int,
          new_execution_id: Callable[[], str], partition_count: int) -> TurnCheckpoint:
    """Return the checkpoint of a turn. Raises InvalidCompletionError for an answer that cannot be carried out.

    Actions are carried out in order of id, whatever the completion's position; history holds the new events as they
    were delivered, then one event an action, ExecutionCompleted last.
    """
    intake = turn.intake
    effects = Effects(turn.row, max(now, intake.started_at), new_execution_id, partition_count,
                      with_grants(turn.row.sections, intake.new_events))
    ordered = sorted(actions, key=_by_id)
    if answer.HasField("numEventsProcessed") and answer.numEventsProcessed.value < intake.event_count:
        refuse(turn.row, pb.OrchestratorAction(), f"only {answer.numEventsProcessed.value} of the "
               f"{intake.event_count} new events were processed; a turn is taken whole or not at all")
    completion = choose(turn.row, ordered, intake.terminated)
    for action in ordered:
        if not action.HasField("completeOrchestration"):
            record(effects, action)
    base = _base(turn, effects, answer)
    if completion is None and intake.terminated is not None:
        return finish(base, effects, intake, turn.past, ending_by_termination(intake.terminated))
    if completion is None:
        return replace(base, history=append_history(effects, intake, effects.history))
    if completion.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
        return continue_as_new(base, effects, intake, turn.past, completion)
    return finish(base, effects, intake, turn.past, ending_of(completion))


def end_pending(turn: Turn, now: int, partition_count: int) -> TurnCheckpoint:
    """Return the checkpoint that ends an instance which was terminated before its first turn (S-416): no worker."""
    intake = turn.intake
    assert intake.terminated is not None
    effects = Effects(turn.row, max(now, intake.started_at), _no_new_execution, partition_count)
    ended = finish(_base(turn, effects, pb.OrchestratorResponse()), effects, intake, (),
                   ending_by_termination(intake.terminated))
    return replace(ended, row=replace(ended.row, history_count=0, custom_status=turn.row.custom_status), history=None)


def _no_new_execution() -> str:
    message = "a terminated execution starts nothing"
    raise AssertionError(message)


def _by_id(action: pb.OrchestratorAction) -> int:
    return action.id


def _base(turn: Turn, effects: Effects, answer: pb.OrchestratorResponse) -> TurnCheckpoint:
    """Return what every checkpoint of this turn has in common; the status is that of an execution that goes on."""
    row, intake = turn.row, turn.intake
    suspended = intake.suspended if intake.suspended is not None else row.status is Status.SUSPENDED
    trace = row.trace
    if answer.HasField("orchestrationTraceContext"):
        answer.orchestrationTraceContext.DiscardUnknownFields()  # see protocol.events
        trace = answer.orchestrationTraceContext.SerializeToString()
    after = replace(
        row, row_version=row.row_version + 1, status=Status.SUSPENDED if suspended else Status.RUNNING,
        updated_at=effects.now, last_turn_at=intake.started_at,
        history_count=row.history_count + intake.event_count + len(effects.history),
        custom_status=answer.customStatus.value or None, trace=trace, sections=tuple(effects.sections))
    to_self = [NewMessage(row.key, None, MessageKind.EVENT, event) for event in effects.self_sent]
    return TurnCheckpoint(
        expected_version=row.row_version, row=after, consumed=intake.consumed, consumed_timers=intake.consumed_timers,
        discarded=intake.discarded, messages=(*effects.messages, *to_self), timers=tuple(effects.timers),
        activities=tuple(effects.activities), children=tuple(effects.children))
