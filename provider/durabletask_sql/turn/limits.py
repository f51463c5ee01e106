"""What a worker's answer may carry: texts up to the limit of payloads, what a transaction can hold, what can be read.

An answer that is too large would be so again: it is not refused, what it answers fails with the cause.
"""

from collections.abc import Sequence

from google.protobuf.message import Message

from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.texts import large_texts
from durabletask_sql.turn.depth import make_readable

ERROR_TYPE = "PayloadTooLarge"
ADVICE = "keep large data elsewhere and pass a reference"
TURN_BYTES = 256 * 1024 * 1024  # PostgreSQL takes 1 GiB in one statement, and the same text may go to two places
_SHORT = 2_000


def oversize(message: Message, limit: int) -> str | None:
    """Return which text of a message is over the limit, and by how much; None when none is."""
    if message.ByteSize() <= limit:
        return None
    data = message.SerializeToString()
    for found in large_texts(type(message), data, 0, len(data), limit + 1):
        return f"{_name(message, found.path)} has {found.end - found.start} bytes: at most {limit} are allowed"
    return None


def _name(message: Message, path: Sequence[int]) -> str:
    """Return a path of field numbers in words; the text of a wrapper is the wrapper's."""
    names, fields = list[str](), message.DESCRIPTOR.fields_by_number
    for number in path:
        field = fields.get(number)
        names.append(field.name if field is not None else str(number))
        fields = field.message_type.fields_by_number if field is not None and field.message_type is not None else {}
    return ".".join(names[:-1] if names[-1] == "value" and len(names) > 1 else names)


def within_limits(row: InstanceRow, answer: pb.OrchestratorResponse, limit: int) -> pb.OrchestratorResponse:
    """Return the answer to a turn, or one that fails the orchestration when it carries too much."""
    cause = _cause(answer, limit)
    if cause is None:
        for action in answer.actions:
            if action.completeOrchestration.HasField("failureDetails"):
                make_readable(action.completeOrchestration.failureDetails)
        return answer
    completing = [action.id for action in answer.actions if action.HasField("completeOrchestration")]
    failure = pb.TaskFailureDetails(errorType=ERROR_TYPE, errorMessage=f"{cause}; {ADVICE}.", isNonRetriable=True)
    failed = pb.CompleteOrchestrationAction(orchestrationStatus=pb.ORCHESTRATION_STATUS_FAILED, failureDetails=failure)
    return pb.OrchestratorResponse(
        instanceId=answer.instanceId, customStatus=events.text(row.custom_status),
        actions=[pb.OrchestratorAction(id=completing[0] if completing else events.INPUT, completeOrchestration=failed)])


def _cause(answer: pb.OrchestratorResponse, limit: int) -> str | None:
    size, most = answer.ByteSize(), max(TURN_BYTES, 2 * limit)
    if size > most:
        return f"The orchestrator's answer to one turn has {size} bytes: at most {most} are allowed"
    if size <= limit:
        return None
    for action in answer.actions:
        found = oversize(action, limit)
        if found is not None:
            return f"The orchestrator's action {action.id} carries too much: {found}"
    rest = pb.OrchestratorResponse()
    rest.CopyFrom(answer)
    del rest.actions[:]
    found = oversize(rest, limit)
    return None if found is None else f"The orchestrator's answer carries too much: {found}"


def oversize_batch(answer: pb.EntityBatchResult, limit: int) -> str | None:
    """Return what the answer to an entity's batch carries too much of; None when it does not."""
    size, most = answer.ByteSize(), max(TURN_BYTES, 2 * limit)
    if size > most:
        return f"the answer has {size} bytes: at most {most} are allowed"
    return oversize(answer, limit)


def failed_batch(entity_id: str, excess: str) -> pb.EntityBatchResult:
    """Return the answer that fails a batch which carried too much."""
    cause = f"The answer of entity '{entity_id}' carries too much: {excess}; {ADVICE}."
    return pb.EntityBatchResult(failureDetails=pb.TaskFailureDetails(
        errorType=ERROR_TYPE, errorMessage=cause, isNonRetriable=True))


def bounded_result(name: str, answer: pb.ActivityResponse, limit: int) -> pb.ActivityResponse:
    """Return the result of an activity, or one that fails it when the text is over the limit.

    A failure with too much text keeps its type and the beginning of its message.
    """
    found = oversize(answer, limit)
    if found is None:
        if answer.HasField("failureDetails"):
            make_readable(answer.failureDetails)
        return answer
    cause = f"The answer of activity '{name}' carries too much: {found}; {ADVICE}."
    failure = pb.TaskFailureDetails(errorType=ERROR_TYPE, errorMessage=cause, isNonRetriable=True)
    if answer.HasField("failureDetails"):
        given = answer.failureDetails
        failure = pb.TaskFailureDetails(
            errorType=given.errorType[:_SHORT], errorMessage=f"{given.errorMessage[:_SHORT]}... (shortened: {cause})",
            isNonRetriable=given.isNonRetriable)
    return pb.ActivityResponse(instanceId=answer.instanceId, taskId=answer.taskId, failureDetails=failure,
                               completionToken=answer.completionToken)
