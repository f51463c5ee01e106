"""Work items over the wire: filters, streamed histories, what Go is sent, answers in parts and without tokens."""

from __future__ import annotations

import contextlib
import queue
import threading

import grpc
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub

from hubs import Hub
from sdk.raw_worker import complete, schedule

MIB = 1024 * 1024
PYTHON, GO, DOTNET, JAVASCRIPT = "grpc-python/1.80", "grpc-go/1.60.1", "grpc-dotnet/2.60", "grpc-node-js/1.12"


class Worker:
    """A worker that presents itself as an SDK would, over a channel of its own with gRPC's own message limit."""

    def __init__(self, address, agent=PYTHON, **request):
        limits = [("grpc.max_receive_message_length", -1)] if agent == JAVASCRIPT else []
        self.channel = grpc.insecure_channel(address, options=limits)
        self.calls = TaskHubSidecarServiceStub(self.channel)
        self.items = queue.Queue()
        self.stream = self.calls.GetWorkItems(pb.GetWorkItemsRequest(**request), metadata=(("x-user-agent", agent),))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with contextlib.suppress(grpc.RpcError):
            for item in self.stream:
                if item.WhichOneof("request") != "healthPing":
                    self.items.put(item)

    def next(self):
        return self.items.get(timeout=60)

    def answer(self, item, *actions, echo=True, **fields):
        self.calls.CompleteOrchestratorTask(pb.OrchestratorResponse(
            instanceId=item.orchestratorRequest.instanceId, completionToken=item.completionToken if echo else "",
            actions=actions, **fields))

    def result(self, item, *, echo=True):
        request = item.activityRequest
        self.calls.CompleteActivityTask(pb.ActivityResponse(
            instanceId=request.orchestrationInstance.instanceId, taskId=request.taskId,
            completionToken=item.completionToken if echo else ""))

    def close(self):
        self.stream.cancel()
        self.channel.close()


@pytest.fixture
def connect(server):
    """Connect workers; they leave with the test."""
    workers = []

    def connected(agent=PYTHON, **request):
        workers.append(Worker(server.address, agent, **request))
        return workers[-1]

    yield connected
    for worker in workers:
        worker.close()


@pytest.fixture
def calls(server):
    with grpc.insecure_channel(server.address) as channel:
        yield TaskHubSidecarServiceStub(channel)


def filters(orchestrations=(), activities=()):
    return pb.WorkItemFilters(
        orchestrations=[pb.OrchestrationFilter(name=name) for name in orchestrations],
        activities=[pb.ActivityFilter(name=name, versions=versions) for name, *versions in activities])


def start(calls, name, instance_id, **fields):
    calls.StartInstance(pb.CreateInstanceRequest(instanceId=instance_id, name=name, **fields))


def finished(calls, instance_id):
    response = calls.WaitForInstanceCompletion(pb.GetInstanceRequest(instanceId=instance_id), timeout=60)
    return response.orchestrationState.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED


def test_workers_get_what_their_filters_take_and_versions_are_inherited(server, connect, calls, fresh_id):
    flow, nobody, instance = fresh_id("Flow"), fresh_id("Nobody"), fresh_id("filtered")
    flows = connect(workItemFilters=filters([flow]))
    one = connect(JAVASCRIPT, workItemFilters=filters(activities=[("act", "1.0-RC")]))
    two = connect(workItemFilters=filters(activities=[("act", "2")]))
    start(calls, nobody, fresh_id("waits"))
    start(calls, flow, instance, version={"value": "1.0-rc"})
    item = flows.next()
    assert item.orchestratorRequest.instanceId == instance
    action = schedule(2, "explicit")
    action.scheduleTask.version.value = "2"
    flows.answer(item, schedule(1, "inherited"), action)
    for worker, version in ((one, None), (two, "2")):
        item = worker.next()
        request = item.activityRequest
        assert (request.version.value if request.HasField("version") else None) == version
        worker.result(item)
    flows.answer(flows.next(), complete(9, "done"))  # of two results it may see the first alone: enough to end
    assert finished(calls, instance)
    assert all(worker.items.empty() for worker in (one, two))


def test_a_python_worker_with_filters_of_its_own_serves_a_hub_with_others(server, fresh_id):
    """The SDK's own way of sending filters, in one hub with work that nobody takes."""
    name, instance = fresh_id("unknown"), fresh_id("python")

    def flow(ctx, _):
        return (yield ctx.call_activity(do_it, input=1))

    def do_it(_, number):
        return number + 1

    hub = Hub(server)
    with hub.client() as client:
        client.schedule_new_orchestration(name, instance_id=fresh_id("waits"))
        with hub.worker(flow, do_it) as worker:
            worker.stop()
            worker.use_work_item_filters()
            worker.start()
            client.schedule_new_orchestration(flow, instance_id=instance)
            state = client.wait_for_orchestration_completion(instance, timeout=60)
            assert state.serialized_output == "2"


def test_a_long_history_is_streamed_to_a_worker_that_announced_it(server, connect, calls, fresh_id):
    flow, instance = fresh_id("Long"), fresh_id("long")
    net = connect(DOTNET, workItemFilters=filters([flow]), capabilities=[pb.WORKER_CAPABILITY_HISTORY_STREAMING])
    start(calls, flow, instance, input={"value": "i" * MIB})
    item = net.next()
    assert not item.orchestratorRequest.requiresHistoryStreaming
    committed = list(item.orchestratorRequest.newEvents)
    for number in range(6):
        net.answer(item)
        calls.RaiseEvent(pb.RaiseEventRequest(instanceId=instance, name=f"e{number}", input={"value": "e" * MIB}))
        item = net.next()
        request = item.orchestratorRequest
        assert (request.requiresHistoryStreaming, len(request.pastEvents)) == (True, 0)
        assert events_of(net.calls, instance, executionId=request.executionId, forWorkItemProcessing=True) == committed
        assert events_of(calls, instance) == committed
        committed += request.newEvents
    net.answer(item, complete(9, "done"))
    assert finished(calls, instance)
    assert events_of(calls, instance)[:len(committed)] == committed


def events_of(calls, instance, **fields):
    """An instance's history, in messages that any client can read."""
    chunks = calls.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance, **fields))
    return [event for chunk in chunks for event in chunk.events]


def test_a_history_too_long_for_python_waits_for_a_worker_that_can_take_it(server, connect, calls, fresh_id):
    flow, instance, other = fresh_id("Heavy"), fresh_id("heavy"), fresh_id("light")
    only = filters([flow])
    python = connect(workItemFilters=only)
    start(calls, flow, instance)
    python.answer(python.next())
    raise_large(calls, instance)
    python.answer(python.next())
    raise_large(calls, instance)  # with the one in its history it is more than 4 MiB
    start(calls, flow, other)
    item = python.next()
    assert item.orchestratorRequest.instanceId == other  # nobody's stream did break
    python.answer(item, complete(9, "done"))
    javascript = connect(JAVASCRIPT, workItemFilters=only)
    item = javascript.next()
    assert item.orchestratorRequest.instanceId == instance
    assert item.ByteSize() > 4 * MIB
    javascript.answer(item, complete(9, "done"))
    assert finished(calls, instance)
    assert python.items.empty()


def raise_large(calls, instance):
    calls.RaiseEvent(pb.RaiseEventRequest(instanceId=instance, name="large", input={"value": "e" * (2 * MIB)}))


def test_go_is_sent_no_event_that_it_panics_on_and_answers_without_tokens(server, connect, calls, fresh_id):
    flow, instance = fresh_id("Go"), fresh_id("go")
    go = connect(GO, workItemFilters=filters([flow], [("act",)]))
    start(calls, flow, instance)
    sent = pb.OrchestratorAction(id=1, sendEvent=pb.SendEventAction(
        instance=pb.OrchestrationInstance(instanceId=fresh_id("nobody")), name="hello"))
    go.answer(go.next(), sent, schedule(2, "x"), echo=False)
    go.result(go.next(), echo=False)
    item = go.next()
    kinds = [event.WhichOneof("eventType") for event in item.orchestratorRequest.pastEvents]
    assert kinds == ["orchestratorStarted", "executionStarted", "taskScheduled"]
    go.answer(item, complete(9, "done"), echo=False)
    assert finished(calls, instance)
    assert any(event.HasField("eventSent") for event in events_of(calls, instance))


def test_an_answer_in_parts_is_committed_with_its_last_and_dropped_with_its_stream(server, connect, calls, fresh_id):
    flow, instance = fresh_id("Parts"), fresh_id("parts")
    only = filters([flow], [("act",)])
    first = connect(DOTNET, workItemFilters=only)
    start(calls, flow, instance)
    first.answer(first.next(), schedule(0, "lost"), isPartial=True, chunkIndex={"value": 0})
    first.stream.cancel()
    second = connect(DOTNET, workItemFilters=only)
    item = second.next()
    second.answer(item, schedule(0, "kept"), isPartial=True, chunkIndex={"value": 0})
    second.answer(item, schedule(1, "last"), chunkIndex={"value": 1}, numEventsProcessed={"value": 0})
    assert sorted(second.next().activityRequest.input.value for _ in range(2)) == ["kept", "last"]
