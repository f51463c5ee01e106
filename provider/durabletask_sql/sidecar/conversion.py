"""Requests and answers of clients, from and to the values of the service."""

from collections.abc import Iterable

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from durabletask_sql.errors import InvalidArgumentError
from durabletask_sql.model.creation import CreationPolicy
from durabletask_sql.model.instances import InstanceState
from durabletask_sql.model.queries import InstanceQuery
from durabletask_sql.model.status import LIVE, TERMINAL, Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.pb_time import check_range, is_zero, micros, micros_rounded_up, timestamp
from durabletask_sql.service.abstraction import NewInstance
from durabletask_sql.settings import Limits

_ALL = LIVE | TERMINAL
_IGNORE, _TERMINATE = 1, 2
_DEFAULT_PAGE = 100
_VARINT = 0
_ACTION_TAG = 0x10  # field 2, varint: the old policy form's action, reserved in today's protocol
_LENGTH_DELIMITED, _FIXED64, _FIXED32 = 2, 1, 5


def optional(field: StringValue, *, present: bool) -> str | None:
    """Return an optional text: None when the field is not set."""
    return field.value if present else None


def new_instance(request: pb.CreateInstanceRequest, user_agent: str) -> NewInstance:
    """Return what a StartInstance call asks for."""
    start_at = None
    if request.HasField("scheduledStartTimestamp") and not is_zero(request.scheduledStartTimestamp):
        check_range(request.scheduledStartTimestamp, "scheduledStartTimestamp")
        start_at = micros_rounded_up(request.scheduledStartTimestamp)
    policy = CreationPolicy()
    if request.HasField("orchestrationIdReusePolicy"):
        policy = creation_policy(request.orchestrationIdReusePolicy, user_agent)
    return NewInstance(
        name=request.name, instance_id=request.instanceId,
        input=optional(request.input, present=request.HasField("input")),
        version=optional(request.version, present=request.HasField("version")), start_at=start_at,
        tags=dict(request.tags), policy=policy,
        trace=request.parentTraceContext if request.HasField("parentTraceContext") else None)


def creation_policy(policy: pb.OrchestrationIdReusePolicy, user_agent: str) -> CreationPolicy:
    """Return who may be replaced: the complement of replaceableStatus, or the old form with its action (S-062)."""
    listed = statuses(policy.replaceableStatus)
    action = _old_action(policy.SerializeToString())
    if action == _TERMINATE:
        return CreationPolicy(dedupe=_ALL - listed - {Status.TERMINATED})
    if action == _IGNORE:
        return CreationPolicy(dedupe=_ALL - listed, ignore=listed)
    if user_agent.startswith("grpc-go"):
        return CreationPolicy(dedupe=_ALL)  # the old form's ERROR, which is never serialized
    return CreationPolicy(dedupe=_ALL - listed)


def _old_action(data: bytes) -> int:
    """Return field 2 of a serialized policy, 0 when it is not there; field 1 is packed or repeated enums."""
    at = 0
    while at < len(data):
        tag, wire = data[at], data[at] & 7
        at += 1
        if tag == _ACTION_TAG:
            return data[at] if at < len(data) else 0
        if wire == _VARINT:
            while at < len(data) and data[at] & 0x80:
                at += 1
            at += 1
        elif wire == _LENGTH_DELIMITED and at < len(data):
            at += 1 + data[at]
        else:
            at += {_FIXED64: 8, _FIXED32: 4}.get(wire, len(data))
    return 0


def instance_query(query: pb.InstanceQuery, limits: Limits) -> InstanceQuery:
    """Return what a QueryInstances call asks for."""
    return InstanceQuery(
        statuses=statuses(query.runtimeStatus), created_from=time_bound(query, "createdTimeFrom"),
        created_to=time_bound(query, "createdTimeTo"), prefix=query.instanceIdPrefix.value,
        page_size=page_size(query.maxInstanceCount, limits), after=query.continuationToken.value or None,
        payloads=query.fetchInputsAndOutputs)


def page_size(wanted: int, limits: Limits) -> int:
    """Return how large a page is: as asked, never larger than the server's limit; 100 when nothing is asked."""
    return min(wanted if wanted > 0 else _DEFAULT_PAGE, limits.page)


def statuses(numbers: Iterable[int]) -> frozenset[Status]:
    """Return the statuses of a filter or a policy. Raises InvalidArgumentError for a number that is none."""
    try:
        return frozenset(Status(number) for number in numbers)
    except ValueError as error:
        message = f"{error}: use a value of OrchestrationStatus"
        raise InvalidArgumentError(message) from error


def time_bound(message: Message, name: str) -> int | None:
    """Return an optional timestamp of a filter in microseconds. Raises InvalidArgumentError when it is impossible."""
    if not message.HasField(name):
        return None
    stamp: Timestamp = getattr(message, name)
    check_range(stamp, name)
    return micros(stamp)


def orchestration_state(state: InstanceState, *, payloads: bool) -> pb.OrchestrationState:
    """Return an instance as the wire has it; what there is none of stays unset."""
    row = state.row
    status = Status.RUNNING if row.status is Status.CONTINUED_AS_NEW else row.status
    result = pb.OrchestrationState(
        instanceId=row.instance_id, name=row.name, orchestrationStatus=pb.OrchestrationStatus.Name(status),
        createdTimestamp=timestamp(row.created_at), lastUpdatedTimestamp=timestamp(row.updated_at), tags=row.tags)
    result.executionId.value = row.execution_id
    if row.version is not None:
        result.version.value = row.version
    if row.scheduled_at is not None:
        result.scheduledStartTimestamp.CopyFrom(timestamp(row.scheduled_at))
    if row.completed_at is not None:
        result.completedTimestamp.CopyFrom(timestamp(row.completed_at))
    if row.custom_status:
        result.customStatus.value = row.custom_status
    if row.parent is not None:
        result.parentInstanceId.value = row.parent.instance_id
    if row.failure is not None and row.status is Status.FAILED:
        result.failureDetails.ParseFromString(row.failure)
    if payloads and state.input is not None:
        result.input.value = state.input
    if payloads and state.output is not None:
        result.output.value = state.output
    return result


def get_response(state: InstanceState | None, *, payloads: bool) -> pb.GetInstanceResponse:
    """Return the answer to GetInstance and to both waits."""
    if state is None:
        return pb.GetInstanceResponse(exists=False)
    return pb.GetInstanceResponse(exists=True, orchestrationState=orchestration_state(state, payloads=payloads))


