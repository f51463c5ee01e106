"""The RPCs that workers call with their answers."""

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.sidecar.calls import Call


async def complete_orchestrator_task(call: Call, answer: pb.OrchestratorResponse) -> pb.CompleteTaskResponse:
    """Take the answer to a turn, or a part of it. A stale token is answered OK: an error would end some SDKs' workers."""
    await call.board.complete_turn(answer)
    return pb.CompleteTaskResponse()


async def complete_activity_task(call: Call, answer: pb.ActivityResponse) -> pb.CompleteTaskResponse:
    """Take the result of an activity; likewise."""
    await call.board.complete_activity(answer)
    return pb.CompleteTaskResponse()


async def complete_entity_task(call: Call, answer: pb.EntityBatchResult) -> pb.CompleteTaskResponse:
    """Take the results of an entity's batch; likewise."""
    await call.board.complete_entity(answer)
    return pb.CompleteTaskResponse()


async def abandon_orchestrator(call: Call, request: pb.AbandonOrchestrationTaskRequest
                               ) -> pb.AbandonOrchestrationTaskResponse:
    """Take a turn back."""
    await call.board.abandon_turn(request.completionToken)
    return pb.AbandonOrchestrationTaskResponse()


async def abandon_activity(call: Call, request: pb.AbandonActivityTaskRequest) -> pb.AbandonActivityTaskResponse:
    """Take an activity task back."""
    await call.board.abandon_activity(request.completionToken)
    return pb.AbandonActivityTaskResponse()


async def abandon_entity(call: Call, request: pb.AbandonEntityTaskRequest) -> pb.AbandonEntityTaskResponse:
    """Take a batch of an entity back."""
    await call.board.abandon_entity(request.completionToken)
    return pb.AbandonEntityTaskResponse()
