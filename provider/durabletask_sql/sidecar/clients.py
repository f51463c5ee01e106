"""The RPCs that clients call."""

from google.protobuf.empty_pb2 import Empty

from durabletask_sql.ids import is_entity
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.settings import Limits
from durabletask_sql.sidecar.calls import Call
from durabletask_sql.sidecar.conversion import (
    get_response,
    instance_query,
    new_instance,
    optional,
    orchestration_state,
)


class ClientMethods:
    """Methods named as the RPCs are in this project's style; each takes the call and its request."""

    def __init__(self, limits: Limits) -> None:
        """Know the server's limits."""
        self._limits = limits

    async def hello(self, call: Call, request: Empty) -> Empty:
        """Say that the server is there."""
        del call
        return request

    async def start_instance(self, call: Call, request: pb.CreateInstanceRequest) -> pb.CreateInstanceResponse:
        """Create an instance."""
        agent = call.agents.strip()
        return pb.CreateInstanceResponse(instanceId=await call.service.create(new_instance(request, agent)))

    async def get_instance(self, call: Call, request: pb.GetInstanceRequest) -> pb.GetInstanceResponse:
        """Return an instance's state; a missing one is no error."""
        payloads = request.getInputsAndOutputs
        return get_response(await call.service.get(request.instanceId, payloads=payloads), payloads=payloads)

    async def wait_for_instance_start(self, call: Call, request: pb.GetInstanceRequest) -> pb.GetInstanceResponse:
        """Wait until an instance has started."""
        payloads = request.getInputsAndOutputs
        return get_response(await call.service.wait_for_start(request.instanceId, payloads=payloads),
                            payloads=payloads)

    async def wait_for_instance_completion(self, call: Call, request: pb.GetInstanceRequest
                                           ) -> pb.GetInstanceResponse:
        """Wait until an instance has ended."""
        payloads = request.getInputsAndOutputs
        return get_response(await call.service.wait_for_completion(request.instanceId, payloads=payloads),
                            payloads=payloads)

    async def raise_event(self, call: Call, request: pb.RaiseEventRequest) -> pb.RaiseEventResponse:
        """Send an event."""
        data = optional(request.input, present=request.HasField("input"))
        if is_entity(request.instanceId):
            await call.entities.signal_legacy(request.instanceId, request.name, data)
            return pb.RaiseEventResponse()
        await call.service.raise_event(request.instanceId, request.name, data)
        return pb.RaiseEventResponse()

    async def terminate_instance(self, call: Call, request: pb.TerminateRequest) -> pb.TerminateResponse:
        """Terminate an instance."""
        reason = optional(request.output, present=request.HasField("output"))
        await call.service.terminate(request.instanceId, reason, recursive=request.recursive)
        return pb.TerminateResponse()

    async def suspend_instance(self, call: Call, request: pb.SuspendRequest) -> pb.SuspendResponse:
        """Suspend an instance."""
        await call.service.suspend(request.instanceId, optional(request.reason, present=request.HasField("reason")))
        return pb.SuspendResponse()

    async def resume_instance(self, call: Call, request: pb.ResumeRequest) -> pb.ResumeResponse:
        """Resume an instance."""
        await call.service.resume(request.instanceId, optional(request.reason, present=request.HasField("reason")))
        return pb.ResumeResponse()

    async def query_instances(self, call: Call, request: pb.QueryInstancesRequest) -> pb.QueryInstancesResponse:
        """Return a page of instances; the token is unset on the last one."""
        query = instance_query(request.query, self._limits)
        page = await call.service.query(query)
        answer = pb.QueryInstancesResponse(
            orchestrationState=[orchestration_state(state, payloads=query.payloads) for state in page.states])
        if page.next is not None:
            answer.continuationToken.value = page.next
        return answer
