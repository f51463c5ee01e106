"""The RPCs that manage what there is: listing, restarting, rewinding, ending at once, purging, task hubs."""

from google.protobuf.duration_pb2 import Duration

from durabletask_sql.errors import InvalidArgumentError
from durabletask_sql.ids import is_entity
from durabletask_sql.model.queries import EndedQuery, Purged, PurgeFilter
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.settings import Limits
from durabletask_sql.sidecar.calls import Call
from durabletask_sql.sidecar.conversion import optional, page_size, statuses, time_bound

_NANOSECONDS = 1_000_000_000
_LONGEST_SECONDS = 315_576_000_000  # ten thousand years, protobuf's own limit


class ManagementMethods:
    """Methods named as the RPCs are in this project's style; each takes the call and its request."""

    def __init__(self, limits: Limits) -> None:
        """Know the server's limits."""
        self._limits = limits

    async def list_instance_ids(self, call: Call, request: pb.ListInstanceIdsRequest) -> pb.ListInstanceIdsResponse:
        """Return a page of the ids of ended instances; the key is unset on the last one."""
        page = await call.service.ended_ids(EndedQuery(
            statuses(request.runtimeStatus), time_bound(request, "completedTimeFrom"),
            time_bound(request, "completedTimeTo"), page_size(request.pageSize, self._limits),
            request.lastInstanceKey.value or None))
        answer = pb.ListInstanceIdsResponse(instanceIds=page.instance_ids)
        if page.next is not None:
            answer.lastInstanceKey.value = page.next
        return answer

    async def restart_instance(self, call: Call, request: pb.RestartInstanceRequest) -> pb.RestartInstanceResponse:
        """Start an instance again."""
        return pb.RestartInstanceResponse(instanceId=await call.service.restart(
            request.instanceId, with_new_id=request.restartWithNewInstanceId))

    async def rewind_instance(self, call: Call, request: pb.RewindInstanceRequest) -> pb.RewindInstanceResponse:
        """Let a failed instance begin again where it failed."""
        await call.service.rewind(request.instanceId, optional(request.reason, present=request.HasField("reason")))
        return pb.RewindInstanceResponse()

    async def skip_graceful_orchestration_terminations(
            self, call: Call, request: pb.SkipGracefulOrchestrationTerminationsRequest
    ) -> pb.SkipGracefulOrchestrationTerminationsResponse:
        """End orchestrations without their workers."""
        reason = optional(request.reason, present=request.HasField("reason"))
        left = await call.service.terminate_now(request.instanceBatch.instanceIds, reason)
        return pb.SkipGracefulOrchestrationTerminationsResponse(unterminatedInstanceIds=left)

    async def purge_instances(self, call: Call, request: pb.PurgeInstancesRequest) -> pb.PurgeInstancesResponse:
        """Delete ended instances: one, a batch, or those that a filter names."""
        match request.WhichOneof("request"):
            case "instanceId":
                if is_entity(request.instanceId):
                    # What says that it is for an orchestration means no entity.
                    purged = Purged(0 if request.isOrchestration else await call.entities.purge(request.instanceId))
                else:
                    purged = await call.service.purge([request.instanceId], recursive=request.recursive)
            case "instanceBatch":
                purged = await call.service.purge(request.instanceBatch.instanceIds, recursive=request.recursive)
            case "purgeInstanceFilter":
                wanted = _purge_filter(request.purgeInstanceFilter)
                purged = await call.service.purge_matching(wanted, recursive=request.recursive)
            case _:
                message = "PurgeInstances names nothing to purge: give an instance id, a batch of ids or a filter"
                raise InvalidArgumentError(message)
        answer = pb.PurgeInstancesResponse(deletedInstanceCount=purged.count)
        answer.isComplete.value = purged.is_complete
        return answer

    async def create_task_hub(self, call: Call, request: pb.CreateTaskHubRequest) -> pb.CreateTaskHubResponse:
        """Make sure that the call's task hub is there, emptied if that is asked for."""
        await call.hub.administration.create(recreate=request.recreateIfExists)
        return pb.CreateTaskHubResponse()

    async def delete_task_hub(self, call: Call, request: pb.DeleteTaskHubRequest) -> pb.DeleteTaskHubResponse:
        """Delete everything in the call's task hub."""
        del request
        await call.hub.administration.delete()
        return pb.DeleteTaskHubResponse()


def _purge_filter(wanted: pb.PurgeInstanceFilter) -> PurgeFilter:
    return PurgeFilter(statuses(wanted.runtimeStatus), time_bound(wanted, "createdTimeFrom"),
                       time_bound(wanted, "createdTimeTo"),
                       _seconds(wanted.timeout) if wanted.HasField("timeout") else None)


def _seconds(duration: Duration) -> float:
    seconds = duration.seconds + duration.nanos / _NANOSECONDS
    if not 0 <= seconds <= _LONGEST_SECONDS:
        message = f"the timeout of the purge is {seconds} s: give a time that is not negative, or none to run to the end"
        raise InvalidArgumentError(message)
    return seconds
