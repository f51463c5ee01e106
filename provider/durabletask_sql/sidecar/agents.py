"""What is known of a worker from how it presents itself: its user agents and its GetWorkItems request."""

from durabletask_sql.model.filters import NameFilter, WorkFilters, name_filter
from durabletask_sql.ports.work import Profile
from durabletask_sql.protocol import taskhub_pb2 as pb

# What gRPC clients read in one message unless told otherwise, as all SDKs but JavaScript's leave it.
MESSAGE_LIMIT = 4 * 1024 * 1024
_UNLIMITED_AGENT = "grpc-node-js"
_GO_AGENT = "grpc-go/"
_JAVA_AGENT = "grpc-java"
_SILENT_AGENTS = (_GO_AGENT, _JAVA_AGENT)  # Java's up to 1.5.0; newer ones cannot be told apart and lose nothing by it

_EVENT = pb.HistoryEvent
# Any other event panics a Go worker's whole process.
GO_EVENTS = frozenset((
    _EVENT.ORCHESTRATORSTARTED_FIELD_NUMBER, _EVENT.EXECUTIONSTARTED_FIELD_NUMBER,
    _EVENT.TASKSCHEDULED_FIELD_NUMBER, _EVENT.TASKCOMPLETED_FIELD_NUMBER, _EVENT.TASKFAILED_FIELD_NUMBER,
    _EVENT.SUBORCHESTRATIONINSTANCECREATED_FIELD_NUMBER, _EVENT.SUBORCHESTRATIONINSTANCECOMPLETED_FIELD_NUMBER,
    _EVENT.SUBORCHESTRATIONINSTANCEFAILED_FIELD_NUMBER, _EVENT.TIMERCREATED_FIELD_NUMBER,
    _EVENT.TIMERFIRED_FIELD_NUMBER, _EVENT.EVENTRAISED_FIELD_NUMBER, _EVENT.EXECUTIONSUSPENDED_FIELD_NUMBER,
    _EVENT.EXECUTIONRESUMED_FIELD_NUMBER, _EVENT.EXECUTIONTERMINATED_FIELD_NUMBER))


def profile_of(agents: str, request: pb.GetWorkItemsRequest) -> Profile:
    """Return what a worker takes."""
    return Profile(
        filters=_filters(request) if request.HasField("workItemFilters") else WorkFilters(),
        message_bytes=None if _UNLIMITED_AGENT in agents else MESSAGE_LIMIT,
        streams_history=pb.WORKER_CAPABILITY_HISTORY_STREAMING in request.capabilities,
        echoes_tokens=not any(agent in agents for agent in _SILENT_AGENTS))


def entity_slots(agents: str, request: pb.GetWorkItemsRequest, default: int) -> int:
    """Return how many batches of entities a worker takes at once; 0: it has none.

    Go's workers know no entities, and Java's give a limit if and only if they have some; all others may have entities
    without giving a limit.
    """
    if _GO_AGENT in agents:
        return 0
    asked = request.maxConcurrentEntityWorkItems
    return asked if asked or _JAVA_AGENT in agents else default


def known_events(agents: str) -> frozenset[int] | None:
    """Return the kinds of history events that a worker can be sent; None: all."""
    return GO_EVENTS if _GO_AGENT in agents else None


def _filters(request: pb.GetWorkItemsRequest) -> WorkFilters:
    filters = request.workItemFilters
    return WorkFilters(name_filter((one.name, one.versions) for one in filters.orchestrations),
                       name_filter((one.name, one.versions) for one in filters.activities),
                       _entities(request))


def _entities(request: pb.GetWorkItemsRequest) -> NameFilter | None:
    """Entities are named in lower case. Java's automatic filters leave them out although it serves them."""
    names = request.workItemFilters.entities
    if not names and request.maxConcurrentEntityWorkItems > 0 and not request.maxConcurrentOrchestrationWorkItems:
        return None
    return name_filter((one.name.lower(), ()) for one in names)
