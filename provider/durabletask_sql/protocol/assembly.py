"""Work items as bytes, put together from stored bytes without parsing them."""

from collections.abc import Iterable, Sequence

from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.events import text
from durabletask_sql.protocol.framing import delimited, retag

_NEW_EVENTS = b"\x22"  # OrchestratorRequest.newEvents = 4
_ORCHESTRATOR_REQUEST = b"\x0a"  # WorkItem.orchestratorRequest = 1
_ACTIVITY_REQUEST = b"\x12"  # WorkItem.activityRequest = 2
_COMPLETION_TOKEN = b"\x52"  # WorkItem.completionToken = 10
_ENTITY_REQUEST = b"\x2a"  # WorkItem.entityRequestV2 = 5
_OPERATION_REQUESTS = b"\x22"  # EntityRequest.operationRequests = 4
_CHUNK_EVENTS = b"\x0a"  # HistoryChunk.events = 1
_STREAMING = b"\x30\x01"  # OrchestratorRequest.requiresHistoryStreaming = 6, true

# More than everything in a work item but its events takes: ids, names, token, trace context.
HEAD_BYTES = 8 * 1024


def orchestrator_request(instance_id: str, execution_id: str, past: Iterable[bytes] | None, new_events: bytes,
                         trace: bytes | None) -> bytes:
    """Return a serialized OrchestratorRequest; `past` and `new_events` are framed lists, `past` None: it is streamed.

    The entity reorder window is present and zero: messages arrive exactly once and in order.
    """
    head = pb.OrchestratorRequest(instanceId=instance_id)
    head.executionId.value = execution_id
    head.entityParameters.entityMessageReorderWindow.SetInParent()
    if trace is not None:
        head.orchestrationTraceContext.ParseFromString(trace)
    history = (_STREAMING,) if past is None else past
    return b"".join((head.SerializeToString(), *history, retag(new_events, _NEW_EVENTS)))


def activity_request(instance_id: str, execution_id: str, event: bytes) -> bytes:
    """Return a serialized ActivityRequest made from a serialized TaskScheduled event."""
    scheduled = pb.HistoryEvent.FromString(event)
    task = scheduled.taskScheduled
    request = pb.ActivityRequest(name=task.name, taskId=scheduled.eventId, tags=task.tags)
    request.orchestrationInstance.instanceId = instance_id
    request.orchestrationInstance.executionId.value = execution_id
    if task.HasField("version"):
        request.version.CopyFrom(task.version)
    if task.HasField("input"):
        request.input.CopyFrom(task.input)
    if task.HasField("parentTraceContext"):
        request.parentTraceContext.CopyFrom(task.parentTraceContext)
    return request.SerializeToString()


def entity_request(instance_id: str, execution_id: str, state: str | None, operations: bytes) -> bytes:
    """Return a serialized EntityRequest; `operations` is a framed list. Without a state the field is absent."""
    head = pb.EntityRequest(instanceId=instance_id, executionId=execution_id, entityState=text(state))
    return head.SerializeToString() + retag(operations, _OPERATION_REQUESTS)


def turn_work_item(token: str, request: bytes) -> bytes:
    """Return a serialized WorkItem with an orchestrator request."""
    return delimited(_ORCHESTRATOR_REQUEST, request) + delimited(_COMPLETION_TOKEN, token.encode())


def activity_work_item(token: str, request: bytes) -> bytes:
    """Return a serialized WorkItem with an activity request."""
    return delimited(_ACTIVITY_REQUEST, request) + delimited(_COMPLETION_TOKEN, token.encode())


def entity_work_item(token: str, request: bytes) -> bytes:
    """Return a serialized WorkItem with a batch of an entity, in the form that every SDK can answer."""
    return delimited(_ENTITY_REQUEST, request) + delimited(_COMPLETION_TOKEN, token.encode())


def health_ping() -> bytes:
    """Return a serialized WorkItem that only says that the stream is alive."""
    return pb.WorkItem(healthPing=pb.HealthPing()).SerializeToString()


def history_chunk(events: bytes) -> bytes:
    """Return a serialized HistoryChunk with a framed list of events."""
    return retag(events, _CHUNK_EVENTS)


def assemble_answer(parts: Sequence[pb.OrchestratorResponse]) -> pb.OrchestratorResponse:
    """Return the answer that came in these parts, put in order. Raises InvalidCompletionError when one is missing.

    Every part repeats the custom status; what else is not an action stands in the first one alone. A part that came
    twice (calls may be repeated) counts once.
    """
    by_index = {part.chunkIndex.value: part for part in parts if part.HasField("chunkIndex")}
    last = len(by_index) - 1
    if by_index.keys() != set(range(last + 1)) or last < 0 or by_index[last].isPartial:
        message = f"the answer came in parts {sorted(by_index)}, of which some are missing"
        raise InvalidCompletionError(message)
    whole = pb.OrchestratorResponse()
    whole.CopyFrom(by_index[0])
    whole.isPartial = False
    for index in range(1, last + 1):
        whole.actions.extend(by_index[index].actions)
    if by_index[last].HasField("customStatus"):
        whole.customStatus.CopyFrom(by_index[last].customStatus)
    return whole
