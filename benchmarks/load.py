"""A load worker and a client without an SDK: they answer from prepared bytes, so that the server is what is measured.

    python benchmarks/load.py worker ADDRESS     work; each line on standard input is answered with the items so far
    python benchmarks/load.py client ADDRESS     run loads given on standard input, one JSON object a line

The worker keeps no state: what a turn answers follows from its request, so any number of worker processes may serve.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc
import grpc.aio
import uvloop

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import delimited

SERVICE = "/TaskHubSidecarService/"
SEQUENCE, FAN_OUT, CALL = "sequence", "fan-out", "call"
ENTITY = "counter"
_SLOTS = 1_000
_TIMEOUT_SECONDS = 300
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

_INSTANCE_ID = b"\x0a"  # OrchestratorResponse.instanceId = 1
_COMPLETION_TOKEN = b"\x22"  # OrchestratorResponse.completionToken = 4
_BATCH_TOKEN = b"\x2a"  # EntityBatchResult.completionToken = 5
_REQUEST_ID = "00000000-0000-0000-0000-000000000001"  # of an execution's only call


def prepared(*actions: pb.OrchestratorAction) -> bytes:
    """Return the actions of an answer as bytes, to be put behind its instance id and token."""
    return pb.OrchestratorResponse(actions=actions).SerializeToString()


def scheduling(number: int) -> pb.OrchestratorAction:
    """Return the action that schedules the activity with this number."""
    action = pb.OrchestratorAction(id=number, scheduleTask=pb.ScheduleTaskAction(name="step"))
    action.scheduleTask.input.value = str(number)
    return action


def calling(name: str, instance_id: str) -> pb.OrchestratorAction:
    """Return the action that calls the entity of this name that belongs to this instance alone."""
    called = pb.EntityOperationCalledEvent(requestId=_REQUEST_ID, operation="add")
    called.targetInstanceId.value = f"@{name}@{instance_id}"
    return pb.OrchestratorAction(id=0, sendEntityMessage=pb.SendEntityMessageAction(entityOperationCalled=called))


def ending(number: int) -> pb.OrchestratorAction:
    """Return the action that completes an orchestration."""
    done = pb.CompleteOrchestrationAction(orchestrationStatus=pb.ORCHESTRATION_STATUS_COMPLETED)
    done.result.value = str(number)
    return pb.OrchestratorAction(id=number, completeOrchestration=done)


class Answers:
    """What the worker answers, made once for each size that comes up."""

    def __init__(self) -> None:
        """Begin with nothing prepared."""
        self._sequences: dict[int, list[bytes]] = {}
        self._fan_outs: dict[int, tuple[bytes, bytes]] = {}
        result = pb.ActivityResponse()
        result.result.value = "0"
        self._result = result.SerializeToString()
        batch = pb.EntityBatchResult(results=[pb.OperationResult(success=pb.OperationResultSuccess())])
        batch.entityState.value = "1"
        self._batch, self._end = batch.SerializeToString(), prepared(ending(1))

    def hear(self, line: str) -> None:
        """Take notice of what the worker is told on standard input; here nothing is."""

    def activity(self, item: pb.WorkItem) -> bytes:
        """Return the result of an activity task."""
        request = item.activityRequest
        answer = pb.ActivityResponse(instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId,
                                     completionToken=item.completionToken)
        return answer.SerializeToString() + self._result

    def entity(self, item: pb.WorkItem) -> bytes:
        """Return the result of an entity's batch, which is of one operation."""
        return delimited(_BATCH_TOKEN, item.completionToken.encode()) + self.results(item.entityRequestV2.instanceId)

    def results(self, _entity_id: str) -> bytes:
        """Return what a batch comes to."""
        return self._batch

    def turn(self, item: pb.WorkItem) -> bytes:
        """Return the answer to a turn."""
        request = item.orchestratorRequest
        start = (request.pastEvents or request.newEvents)[1].executionStarted
        return (delimited(_INSTANCE_ID, request.instanceId.encode())
                + delimited(_COMPLETION_TOKEN, item.completionToken.encode())
                + self.actions(request, start.name, start.input.value))

    def actions(self, request: pb.OrchestratorRequest, name: str, text: str) -> bytes:
        """Return what a turn comes to: the next activity, all activities, a call, nothing yet, or the end."""
        if name == SEQUENCE:
            return self._sequence(request, int(text))
        if name == CALL:
            return self._end if request.pastEvents else prepared(calling(ENTITY, request.instanceId))
        return self._fan_out(request, int(text))

    def _sequence(self, request: pb.OrchestratorRequest, size: int) -> bytes:
        steps = self._sequences.get(size)
        if steps is None:
            steps = [prepared(scheduling(number)) for number in range(size)] + [prepared(ending(size))]
            self._sequences[size] = steps
        last = request.newEvents[-1]
        return steps[last.taskCompleted.taskScheduledId + 1 if last.HasField("taskCompleted") else 0]

    def _fan_out(self, request: pb.OrchestratorRequest, size: int) -> bytes:
        both = self._fan_outs.get(size)
        if both is None:
            both = self._fan_outs[size] = (prepared(*map(scheduling, range(size))), prepared(ending(size)))
        if not request.pastEvents:
            return both[0]
        results = sum(event.HasField("taskCompleted") for events in (request.pastEvents, request.newEvents)
                      for event in events)
        return both[1] if results == size else b""


def unary(channel: grpc.aio.Channel, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """Return a call of the service, from bytes to bytes."""
    return channel.unary_unary(f"{SERVICE}{method}", bytes, bytes)


class Worker:
    """One stream of work items and the calls that answer them."""

    def __init__(self, channel: grpc.aio.Channel, answers: Answers) -> None:
        """Use this channel, and answer so."""
        self.turns = 0
        self.activities = 0
        self._answers = answers
        self._items = channel.unary_stream(f"{SERVICE}GetWorkItems", bytes, bytes)
        self._complete_turn = unary(channel, "CompleteOrchestratorTask")
        self._complete_activity = unary(channel, "CompleteActivityTask")
        self._complete_entity = unary(channel, "CompleteEntityTask")

    async def run(self) -> None:
        """Answer every item; end with an error when an answer is refused."""
        limits = pb.GetWorkItemsRequest(maxConcurrentOrchestrationWorkItems=_SLOTS,
                                        maxConcurrentActivityWorkItems=_SLOTS,
                                        maxConcurrentEntityWorkItems=_SLOTS)
        async with asyncio.TaskGroup() as calls:
            async for data in self._items(limits.SerializeToString()):
                item = pb.WorkItem.FromString(data)
                if item.HasField("orchestratorRequest"):
                    calls.create_task(self._answer_turn(self._answers.turn(item)))
                elif item.HasField("activityRequest"):
                    calls.create_task(self._answer_activity(self._answers.activity(item)))
                elif item.HasField("entityRequestV2"):
                    calls.create_task(self._answer_entity(self._answers.entity(item)))

    async def _answer_turn(self, answer: bytes) -> None:
        await self._complete_turn(answer)
        self.turns += 1

    async def _answer_activity(self, answer: bytes) -> None:
        await self._complete_activity(answer)
        self.activities += 1

    async def _answer_entity(self, answer: bytes) -> None:
        await self._complete_entity(answer)


async def work(address: str, answers: Answers) -> None:
    """Be a worker until standard input ends."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        worker = Worker(channel, answers)
        working = asyncio.create_task(worker.run())
        while (line := await asyncio.to_thread(sys.stdin.readline)) and not working.done():
            answers.hear(line.strip())
            print(json.dumps([worker.turns, worker.activities]), flush=True)
        if working.done():
            working.result()
        working.cancel()


async def run_load(channel: grpc.aio.Channel, load: dict[str, Any]) -> float:
    """Start so many instances at once and wait until all are completed; return the seconds that it took."""
    start, wait = unary(channel, "StartInstance"), unary(channel, "WaitForInstanceCompletion")

    async def one(number: int) -> None:
        request = pb.CreateInstanceRequest(instanceId=f"{load['prefix']}-{number}", name=load["name"])
        request.input.value = str(load["size"])
        await start(request.SerializeToString())
        asked = pb.GetInstanceRequest(instanceId=request.instanceId).SerializeToString()
        state = pb.GetInstanceResponse.FromString(await wait(asked, timeout=_TIMEOUT_SECONDS)).orchestrationState
        assert state.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED, state

    began = time.perf_counter()
    async with asyncio.TaskGroup() as instances:
        for number in range(load["count"]):
            instances.create_task(one(number))
    return time.perf_counter() - began


async def drive(address: str) -> None:
    """Run the loads that come in, one after the other."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await run_load(channel, json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(work(sys.argv[2], Answers()) if sys.argv[1] == "worker" else drive(sys.argv[2]))
