"""I4 over 10,000 messages: clients write through the owner and past it; nothing is missed, doubled or reordered."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import grpc
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub

from checker import check_hub
from server import ServerProcess

SENDER = Path(__file__).with_name("sender.py")
INSTANCES = [f"ear-{number}" for number in range(8)]
THROUGH, PAST = 3, 3
EACH = 1_667  # six senders: a little over 10,000


def listen(stub: TaskHubSidecarServiceStub) -> None:
    """Answer every turn with nothing, until the stream is cancelled."""
    try:
        for item in stub.GetWorkItems(pb.GetWorkItemsRequest()):
            if item.HasField("orchestratorRequest"):
                stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
                    instanceId=item.orchestratorRequest.instanceId, completionToken=item.completionToken))
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.CANCELLED:
            raise


def raise_through(stub: TaskHubSidecarServiceStub, prefix: str) -> None:
    for number in range(EACH):
        request = pb.RaiseEventRequest(instanceId=INSTANCES[number % len(INSTANCES)], name=prefix)
        request.input.value = str(number)
        stub.RaiseEvent(request)


def received(stub: TaskHubSidecarServiceStub) -> dict[tuple[str, str], list[int]]:
    """Return the numbers that each instance has in its history, by sender."""
    found = defaultdict(list)
    for instance in INSTANCES:
        for chunk in stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance)):
            for event in chunk.events:
                if event.HasField("eventRaised"):
                    found[instance, event.eventRaised.name].append(int(event.eventRaised.input.value))
    return found


@pytest.fixture
def server(database_url: str, tmp_path: Path):
    process = ServerProcess(database_url, tmp_path / "server.log").start()
    yield process
    process.kill()


def test_messages_of_racing_clients_arrive_once_and_in_order(server, database_url):
    with grpc.insecure_channel(server.address) as channel:
        stub = TaskHubSidecarServiceStub(channel)
        for instance in INSTANCES:
            stub.StartInstance(pb.CreateInstanceRequest(instanceId=instance, name="ear"))
        work = threading.Thread(target=listen, args=(stub,), daemon=True)
        work.start()
        threads = [threading.Thread(target=raise_through, args=(stub, f"through-{number}")) for number in range(THROUGH)]
        processes = [subprocess.Popen([sys.executable, str(SENDER), database_url, f"past-{number}", str(EACH), *INSTANCES])
                     for number in range(PAST)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [process.wait() for process in processes] == [0] * PAST
        total = (THROUGH + PAST) * EACH
        for _ in range(600):
            found = received(stub)
            if sum(map(len, found.values())) >= total:
                break
            threading.Event().wait(0.05)  # what was written past the owner is found by its poll
    senders = [f"through-{number}" for number in range(THROUGH)] + [f"past-{number}" for number in range(PAST)]
    for place, instance in enumerate(INSTANCES):
        for sender in senders:
            assert found[instance, sender] == list(range(place, EACH, len(INSTANCES))), (instance, sender)
    assert check_hub(database_url) == []
