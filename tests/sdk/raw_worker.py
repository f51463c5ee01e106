"""A worker of bare messages that reads messages of any size, and a stub for a client that does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# The one SDK whose gRPC library reads messages of any size unless told otherwise.
AGENT = (("x-user-agent", "grpc-node-js/1.0"),)


@contextmanager
def stub(address: str) -> Iterator[TaskHubSidecarServiceStub]:
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        yield TaskHubSidecarServiceStub(channel)


class RawWorker:
    """Work items in a queue, and answers to them."""

    def __init__(self, calls: TaskHubSidecarServiceStub, *capabilities: int) -> None:
        self._calls = calls
        self._items: queue.Queue[pb.WorkItem] = queue.Queue()
        self._stream = calls.GetWorkItems(pb.GetWorkItemsRequest(
            maxConcurrentOrchestrationWorkItems=5, maxConcurrentActivityWorkItems=5, capabilities=capabilities),
            metadata=AGENT)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for item in self._stream:
                if item.WhichOneof("request") != "healthPing":
                    self._items.put(item)
        except grpc.RpcError:
            return  # the server went, or the test ended the stream

    def next(self, timeout: float = 60.0) -> pb.WorkItem:
        return self._items.get(timeout=timeout)

    def answer_turn(self, item: pb.WorkItem, *actions: pb.OrchestratorAction, custom_status: str | None = None) -> None:
        self._calls.CompleteOrchestratorTask(pb.OrchestratorResponse(
            instanceId=item.orchestratorRequest.instanceId, completionToken=item.completionToken, actions=actions,
            customStatus=None if custom_status is None else {"value": custom_status}))

    def answer_activity(self, item: pb.WorkItem, result: str) -> None:
        request = item.activityRequest
        self._calls.CompleteActivityTask(pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId,
            completionToken=item.completionToken, result={"value": result}))

    def close(self) -> None:
        self._stream.cancel()


def schedule(task_id: int, text: str) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=task_id, scheduleTask=pb.ScheduleTaskAction(name="act", input={"value": text}))


def complete(action_id: int, text: str) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=action_id, completeOrchestration=pb.CompleteOrchestrationAction(
        orchestrationStatus=pb.ORCHESTRATION_STATUS_COMPLETED, result={"value": text}))
