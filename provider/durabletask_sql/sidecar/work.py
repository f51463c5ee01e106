"""The RPCs that workers call with their answers."""

from collections import OrderedDict

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.sidecar.calls import Call

_OPEN_ANSWERS = 256


class WorkMethods:
    """Answers to work items. A stale or unknown token is answered OK: an error would tear down some SDKs' workers."""

    def __init__(self) -> None:
        """Begin without partial answers."""
        self._partial: OrderedDict[str, list[pb.OrchestratorAction]] = OrderedDict()

    async def complete_orchestrator_task(self, call: Call, answer: pb.OrchestratorResponse) -> pb.CompleteTaskResponse:
        """Take the answer to a turn; one that comes in chunks is put together and committed with its last."""
        token = answer.completionToken
        if answer.isPartial:
            self._partial.setdefault(token, []).extend(answer.actions)
            while len(self._partial) > _OPEN_ANSWERS:
                self._partial.popitem(last=False)
            return pb.CompleteTaskResponse()
        earlier = self._partial.pop(token, None)
        if earlier is not None:
            actions = [*earlier, *answer.actions]
            del answer.actions[:]
            answer.actions.extend(actions)
            answer.ClearField("numEventsProcessed")  # 0 in every chunk but the first, whatever was processed
        await call.board.complete_turn(token, answer)
        return pb.CompleteTaskResponse()

    async def complete_activity_task(self, call: Call, answer: pb.ActivityResponse) -> pb.CompleteTaskResponse:
        """Take the result of an activity."""
        await call.board.complete_activity(answer.completionToken, answer)
        return pb.CompleteTaskResponse()

    async def abandon_orchestrator(self, call: Call, request: pb.AbandonOrchestrationTaskRequest
                                   ) -> pb.AbandonOrchestrationTaskResponse:
        """Take a turn back."""
        self._partial.pop(request.completionToken, None)
        await call.board.abandon_turn(request.completionToken)
        return pb.AbandonOrchestrationTaskResponse()

    async def abandon_activity(self, call: Call, request: pb.AbandonActivityTaskRequest
                               ) -> pb.AbandonActivityTaskResponse:
        """Take an activity task back."""
        await call.board.abandon_activity(request.completionToken)
        return pb.AbandonActivityTaskResponse()
