"""The RPCs about entities that clients call."""

from durabletask_sql.model.entities import EntityQuery, EntityState
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.pb_time import check_range, is_zero, micros, micros_rounded_up, timestamp
from durabletask_sql.service.abstraction import Signal
from durabletask_sql.settings import Limits
from durabletask_sql.sidecar.calls import Call
from durabletask_sql.sidecar.conversion import optional

_DEFAULT_PAGE = 100
_MOST_BACKLOG = 2**31 - 1


class EntityMethods:
    """Methods named as the RPCs are in this project's style; each takes the call and its request."""

    def __init__(self, limits: Limits) -> None:
        """Know the server's limits."""
        self._limits = limits

    async def signal_entity(self, call: Call, request: pb.SignalEntityRequest) -> pb.SignalEntityResponse:
        """Send a signal."""
        due = scheduled = None
        if request.HasField("scheduledTime") and not is_zero(request.scheduledTime):
            check_range(request.scheduledTime, "scheduledTime")
            due, scheduled = micros_rounded_up(request.scheduledTime), request.scheduledTime
        await call.entities.signal(Signal(
            request.instanceId, request.name, optional(request.input, present=request.HasField("input")),
            request.requestId, due, scheduled))
        return pb.SignalEntityResponse()

    async def get_entity(self, call: Call, request: pb.GetEntityRequest) -> pb.GetEntityResponse:
        """Return an entity that has a state."""
        found = await call.entities.get(request.instanceId)
        if found is None:
            return pb.GetEntityResponse(exists=False)
        return pb.GetEntityResponse(exists=True, entity=entity_metadata(found, with_state=request.includeState))

    async def query_entities(self, call: Call, request: pb.QueryEntitiesRequest) -> pb.QueryEntitiesResponse:
        """Return a page of entities; the token is unset on the last one."""
        page = await call.entities.query(entity_query(request.query, self._limits))
        answer = pb.QueryEntitiesResponse(
            entities=[entity_metadata(one, with_state=request.query.includeState) for one in page.entities])
        if page.next is not None:
            answer.continuationToken.value = page.next
        return answer

    async def clean_entity_storage(self, call: Call, request: pb.CleanEntityStorageRequest
                                   ) -> pb.CleanEntityStorageResponse:
        """Free orphaned locks. There are no empty entities to remove: one goes in the commit that empties it."""
        answer = pb.CleanEntityStorageResponse()
        if request.releaseOrphanedLocks:
            cleaned = await call.entities.release_orphans(request.continuationToken.value or None)
            answer.orphanedLocksReleased = len(cleaned.released)
            if cleaned.next is not None:
                answer.continuationToken.value = cleaned.next
        return answer


def entity_query(query: pb.EntityQuery, limits: Limits) -> EntityQuery:
    """Return what a QueryEntities call asks for; a page is never larger than the server's limit."""
    for name in ("lastModifiedFrom", "lastModifiedTo"):
        if query.HasField(name):
            check_range(getattr(query, name), name)
    wanted = query.pageSize.value
    return EntityQuery(
        prefix=query.instanceIdStartsWith.value,
        modified_from=micros(query.lastModifiedFrom) if query.HasField("lastModifiedFrom") else None,
        modified_to=micros(query.lastModifiedTo) if query.HasField("lastModifiedTo") else None,
        transient=query.includeTransient, states=query.includeState,
        page_size=min(wanted if wanted > 0 else _DEFAULT_PAGE, limits.page), after=query.continuationToken.value or None)


def entity_metadata(entity: EntityState, *, with_state: bool) -> pb.EntityMetadata:
    """Return an entity as the wire has it; what there is none of stays unset."""
    row = entity.row
    result = pb.EntityMetadata(instanceId=row.instance_id, lastModifiedTime=timestamp(row.modified_at),
                               backlogQueueSize=min(entity.backlog, _MOST_BACKLOG))
    if row.lock is not None:
        result.lockedBy.value = row.lock.instance_id
    if with_state and row.state is not None:
        result.serializedState.value = row.state
    return result
