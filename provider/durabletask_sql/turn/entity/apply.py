"""From a worker's answer to an entity's batch to the checkpoint that commits it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.ids import guid_of, is_entity, partition_of
from durabletask_sql.model.checkpoints import EntityCheckpoint, NewChild
from durabletask_sql.model.entities import EntityRow
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, NewMessage, NewTimer, QueueRow, TimerRow
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.protocol.pb_time import in_range, micros_rounded_up
from durabletask_sql.turn.entity.intake import Batch, after, version
from durabletask_sql.turn.entity.messages import Operation, write_failure, write_result
from durabletask_sql.turn.names import flaw_of_entity_id, flaw_of_name, flaw_of_text
from durabletask_sql.turn.start import start_message


@dataclass(frozen=True, slots=True)
class EntityTurn:
    """A batch that was run: the entity before it, and what the worker was given."""

    key: InstanceKey
    row: EntityRow | None
    batch: Batch


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a checkpoint needs besides the answer."""

    now: int
    new_id: Callable[[], str]
    partition_count: int

    def key(self, instance_id: str) -> InstanceKey:
        """Return where an instance lives."""
        return InstanceKey(partition_of(instance_id, self.partition_count), instance_id)


def apply_batch(turn: EntityTurn, answer: pb.EntityBatchResult, around: Surroundings) -> EntityCheckpoint:
    """Return the checkpoint of a batch. Raises InvalidCompletionError for an answer that cannot be carried out.

    Fewer results than operations: the rest stay in the queue, where they are. A failure of the whole batch fails the
    operations that have no result, and keeps the state (S-333).
    """
    operations, failed = turn.batch.operations, answer.HasField("failureDetails")
    results = list(answer.results)
    if len(results) > len(operations) or not (results or failed):
        _refuse(turn, f"{len(results)} results answer {len(operations)} operations")
    done = operations if failed else operations[:len(results)]
    messages = [reply for at, (_, operation) in enumerate(done)
                if (reply := _reply(turn, operation, results[at] if at < len(results) else None, answer, around))]
    timers: list[NewTimer] = []
    children: list[NewChild] = []
    for action in answer.actions:
        match action.WhichOneof("operationActionType"):
            case "sendSignal":
                _signal(turn, action.sendSignal, around, messages, timers)
            case "startNewOrchestration":
                children.append(_start(turn, action.startNewOrchestration, around))
            case kind:
                _refuse(turn, f"an action of the kind {kind!r} is not known to this server")
    row, lock = turn.row, turn.row.lock if turn.row is not None else None
    state = answer.entityState.value or None
    if failed and not answer.HasField("entityState"):
        state = row.state if row is not None else None
    return EntityCheckpoint(turn.key, version(row), after(turn.key, row, state, lock, around.now), *rows_of(done),
                            tuple(messages), tuple(timers), tuple(children))


def _reply(turn: EntityTurn, operation: Operation, result: pb.OperationResult | None, answer: pb.EntityBatchResult,
           around: Surroundings) -> NewMessage | None:
    """Return the answer to a call; None for a signal. `result` None: the batch failed before the operation ran."""
    kind = result.WhichOneof("resultType") if result is not None else "failed with its batch"
    if kind is None:
        _refuse(turn, f"the result of request {operation.request_id} is neither a success nor a failure")
    if operation.caller is None:
        return None
    if result is not None and kind == "success":
        success = result.success
        body = write_result(operation, success.result.value if success.HasField("result") else None, around.now)
    else:
        details = answer.failureDetails if result is None else result.failure.failureDetails
        body = write_failure(operation, details, around.now)
    caller = operation.caller
    return NewMessage(around.key(caller.instance_id), caller.execution_id, MessageKind.EVENT, body)


def _signal(turn: EntityTurn, sent: pb.SendSignalAction, around: Surroundings, messages: list[NewMessage],
            timers: list[NewTimer]) -> None:
    """Send a signal; it gets a request id that every SDK can parse."""
    _check(turn, flaw_of_entity_id(sent.instanceId))
    event = pb.EntityOperationSignaledEvent(requestId=guid_of(around.new_id()), operation=sent.name,
                                            targetInstanceId=events.text(sent.instanceId))
    for name in ("input", "scheduledTime"):
        if sent.HasField(name):
            getattr(event, name).CopyFrom(getattr(sent, name))
    due = 0
    if event.HasField("scheduledTime"):
        event.scheduledTime.CopyFrom(in_range(event.scheduledTime))
        due = micros_rounded_up(event.scheduledTime)
    key, body = around.key(sent.instanceId), frame(events.entity_signaled(around.now, events.INPUT, event))
    if due > around.now:
        timers.append(NewTimer(key, "", MessageKind.EVENT, due, body))
    else:
        messages.append(NewMessage(key, None, MessageKind.EVENT, body))


def _start(turn: EntityTurn, asked: pb.StartNewOrchestrationAction, around: Surroundings) -> NewChild:
    """Start an orchestration of its own; one that runs under this id already is left alone."""
    instance_id = asked.instanceId or around.new_id()
    _check(turn, flaw_of_name(asked.name, "orchestration name"))
    _check(turn, flaw_of_name(instance_id, "orchestration id"))
    _check(turn, flaw_of_text(asked.version.value, "version"))
    if is_entity(instance_id):
        _refuse(turn, f"orchestration {asked.name!r} cannot be started with the id {instance_id!r}, which is an entity's")
    due = micros_rounded_up(in_range(asked.scheduledTime)) if asked.HasField("scheduledTime") else 0
    now = around.now
    row = InstanceRow(
        *around.key(instance_id), around.new_id(), 0, 1, asked.name, asked.version.value or None, Status.PENDING, now,
        now, scheduled_at=due if due > now else None)
    text = asked.input.value if asked.HasField("input") else None
    trace = asked.parentTraceContext if asked.HasField("parentTraceContext") else None
    return NewChild(row, text, start_message(row, text, trace, now), None)


def _check(turn: EntityTurn, flaw: str | None) -> None:
    if flaw is not None:
        _refuse(turn, flaw)


def _refuse(turn: EntityTurn, why: str) -> NoReturn:
    message = f"entity '{turn.key.instance_id}': {why}"
    raise InvalidCompletionError(message)


def rows_of(operations: Sequence[tuple[QueueRow | TimerRow, Operation]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sequences of the queue rows and of the timers that operations came in."""
    return (tuple(row.seq for row, _ in operations if isinstance(row, QueueRow)),
            tuple(row.seq for row, _ in operations if isinstance(row, TimerRow)))
