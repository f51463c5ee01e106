"""Waiting for instances: as long as it takes, beside other calls, and for what is committed."""

from __future__ import annotations

import grpc
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb

from wire import complete, connected

RUNNING, COMPLETED = pb.ORCHESTRATION_STATUS_RUNNING, pb.ORCHESTRATION_STATUS_COMPLETED


@pytest.fixture(scope="module")
def wire(server):
    with connected(server, "second") as wire:
        yield wire


def waiting(wire, method, instance_id):
    """Wait without a deadline, as JavaScript and .NET do."""
    return getattr(wire.stub, method).future(pb.GetInstanceRequest(instanceId=instance_id), metadata=wire.metadata)


def test_a_wait_for_an_instance_that_is_not_there_yet_waits_for_it(wire, fresh_id):
    """Some SDKs look into the answer without asking whether the instance exists."""
    instance_id = fresh_id("missing")
    start, end = waiting(wire, "WaitForInstanceStart", instance_id), waiting(wire, "WaitForInstanceCompletion", instance_id)
    with wire.worker() as worker:
        wire.start(instance_id)
        turn = worker.turn(instance_id)
        assert not start.done()
        worker.answer(turn)
        assert start.result(20).orchestrationState.orchestrationStatus == RUNNING
        assert not end.done()
        wire.raise_event(instance_id)
        worker.answer(worker.turn(instance_id), complete())
        assert end.result(20).orchestrationState.orchestrationStatus == COMPLETED


def test_a_suspended_instance_has_started(wire, fresh_id):
    instance_id = fresh_id("suspended")
    start = waiting(wire, "WaitForInstanceStart", instance_id)
    with wire.worker() as worker:
        wire.start(instance_id)
        wire.suspend(instance_id)
        turn = worker.turn(instance_id)
        worker.answer(turn)
        assert start.result(20).orchestrationState.orchestrationStatus in (RUNNING, pb.ORCHESTRATION_STATUS_SUSPENDED)
        wire.resume(instance_id)
        wire.terminate(instance_id)


def test_three_hundred_waits_hold_nobody_up(wire, fresh_id):
    ids = [fresh_id("crowd") for _ in range(300)]
    waits = [waiting(wire, "WaitForInstanceCompletion", instance_id) for instance_id in ids]
    with wire.worker() as worker:
        for instance_id in ids[:3]:
            wire.start(instance_id)
            worker.answer(worker.turn(instance_id), complete())
            # What a wait answers is committed: the instance can be purged at once.
            assert waits[ids.index(instance_id)].result(20).exists
            purge = pb.PurgeInstancesRequest(instanceId=instance_id)
            assert wire.call("PurgeInstances", purge).deletedInstanceCount == 1
    for wait in waits[3:]:
        wait.cancel()
    assert not wire.call("GetInstance", pb.GetInstanceRequest(instanceId=ids[3])).exists


def test_a_deadline_ends_a_wait_and_nothing_else(wire, fresh_id):
    instance_id = fresh_id("deadline")
    with pytest.raises(grpc.RpcError) as caught:
        wire.call("WaitForInstanceCompletion", pb.GetInstanceRequest(instanceId=instance_id), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not wire.call("GetInstance", pb.GetInstanceRequest(instanceId=instance_id)).exists
