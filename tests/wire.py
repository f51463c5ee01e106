"""Clients and workers made of single calls, for what the SDKs hide: every field is the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

from server import ServerProcess

SECONDS = 30
COMPLETED, FAILED, TERMINATED, CONTINUED_AS_NEW = (
    pb.ORCHESTRATION_STATUS_COMPLETED, pb.ORCHESTRATION_STATUS_FAILED, pb.ORCHESTRATION_STATUS_TERMINATED,
    pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)


class Wire:
    """A channel to one task hub of a server. Every call ends after `SECONDS` at the latest."""

    def __init__(self, channel: grpc.Channel, hub: str) -> None:
        self.stub = TaskHubSidecarServiceStub(channel)
        self.metadata = (("taskhub", hub),)

    def call(self, method: str, request: Any, timeout: float = SECONDS) -> Any:
        return getattr(self.stub, method)(request, metadata=self.metadata, timeout=timeout)

    def start(self, instance_id: str, name: str = "n", **fields: Any) -> str:
        request = pb.CreateInstanceRequest(instanceId=instance_id, name=name, **fields)
        return self.call("StartInstance", request).instanceId

    def raise_event(self, instance_id: str, name: str = "e", data: str | None = None) -> None:
        self.call("RaiseEvent", pb.RaiseEventRequest(instanceId=instance_id, name=name, input=text(data)))

    def terminate(self, instance_id: str, output: str | None = None, *, recursive: bool = False) -> None:
        self.call("TerminateInstance", pb.TerminateRequest(instanceId=instance_id, output=text(output), recursive=recursive))

    def suspend(self, instance_id: str) -> None:
        self.call("SuspendInstance", pb.SuspendRequest(instanceId=instance_id))

    def resume(self, instance_id: str) -> None:
        self.call("ResumeInstance", pb.ResumeRequest(instanceId=instance_id))

    def state(self, instance_id: str) -> pb.OrchestrationState:
        return self.call("GetInstance", pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)).orchestrationState

    def end(self, instance_id: str) -> pb.OrchestrationState:
        request = pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)
        return self.call("WaitForInstanceCompletion", request).orchestrationState

    def history(self, instance_id: str) -> list[pb.HistoryEvent]:
        chunks = self.call("StreamInstanceHistory", pb.StreamInstanceHistoryRequest(instanceId=instance_id))
        return [event for chunk in chunks for event in chunk.events]

    @contextmanager
    def worker(self, **limits: int) -> Iterator[Worker]:
        worker = Worker(self, **limits)
        try:
            yield worker
        finally:
            worker.leave()


class Worker:
    """A stream of work. What came and was not asked for is in `passed`, unanswered; it goes back when the stream ends."""

    def __init__(self, wire: Wire, **limits: int) -> None:
        self._wire = wire
        self.passed: list[pb.WorkItem] = []
        self._stream = wire.stub.GetWorkItems(pb.GetWorkItemsRequest(**limits), metadata=wire.metadata, timeout=2 * SECONDS)

    def leave(self) -> None:
        self._stream.cancel()

    def next(self) -> pb.WorkItem:
        """Return the next item, whatever it is."""
        return next(self._stream)

    def turn(self, instance_id: str) -> pb.WorkItem:
        """Return the next turn of an instance."""
        return self._first(lambda item: item.orchestratorRequest.instanceId == instance_id)

    def activity(self, instance_id: str) -> pb.WorkItem:
        """Return the next activity task of an instance."""
        return self._first(lambda item: item.activityRequest.orchestrationInstance.instanceId == instance_id)

    def _first(self, wanted: Callable[[pb.WorkItem], bool]) -> pb.WorkItem:
        for item in self.passed:
            if wanted(item):
                self.passed.remove(item)
                return item
        for item in self._stream:
            if wanted(item):
                return item
            self.passed.append(item)
        message = "the stream ended without it"
        raise AssertionError(message)

    def answer(self, item: pb.WorkItem, *actions: pb.OrchestratorAction, **fields: Any) -> None:
        """Answer a turn."""
        self._wire.call("CompleteOrchestratorTask", pb.OrchestratorResponse(
            instanceId=item.orchestratorRequest.instanceId, completionToken=item.completionToken, actions=actions, **fields))

    def result(self, item: pb.WorkItem, **fields: Any) -> None:
        """Answer an activity task."""
        request = item.activityRequest
        self._wire.call("CompleteActivityTask", pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId,
            completionToken=item.completionToken, **fields))


@contextmanager
def connected(server: ServerProcess, hub: str) -> Iterator[Wire]:
    """A channel without limits on messages."""
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield Wire(channel, hub)


def text(value: str | None) -> StringValue | None:
    return None if value is None else StringValue(value=value)


def schedule(number: int, name: str = "a", **fields: Any) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=number, scheduleTask=pb.ScheduleTaskAction(name=name, **fields))


def timer(number: int, fire_at: Timestamp) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=number, createTimer=pb.CreateTimerAction(fireAt=fire_at))


def child(number: int, instance_id: str, name: str = "n", **fields: Any) -> pb.OrchestratorAction:
    action = pb.CreateSubOrchestrationAction(instanceId=instance_id, name=name, **fields)
    return pb.OrchestratorAction(id=number, createSubOrchestration=action)


def send(number: int, instance_id: str, name: str = "e", data: str | None = None) -> pb.OrchestratorAction:
    action = pb.SendEventAction(instance=pb.OrchestrationInstance(instanceId=instance_id), name=name, data=text(data))
    return pb.OrchestratorAction(id=number, sendEvent=action)


def complete(number: int = -1, status: int = COMPLETED, result: str | None = None, **fields: Any) -> pb.OrchestratorAction:
    action = pb.CompleteOrchestrationAction(orchestrationStatus=status, result=text(result), **fields)
    return pb.OrchestratorAction(id=number, completeOrchestration=action)


def kinds(events: Any) -> list[str]:
    """Return what kinds of events these are."""
    return [event.WhichOneof("eventType") for event in events]
