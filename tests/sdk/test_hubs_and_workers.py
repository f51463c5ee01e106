"""Task hubs that see nothing of each other, and workers that come and go."""

from __future__ import annotations

import json
import threading

import grpc
import pytest
from durabletask.client import OrchestrationStatus
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.worker import ConcurrencyOptions

from hubs import Hub

COMPLETED = OrchestrationStatus.COMPLETED


def do_where(_, name):
    return name


def where(ctx, name):
    return (yield ctx.call_activity(do_where, input=name))


def test_two_hubs_in_one_database_see_nothing_of_each_other(server, fresh_id):
    first, second, instance_id = Hub(server, "default"), Hub(server, "second"), fresh_id("same")
    with first.client() as one, second.client() as two, first.worker(do_where, where), second.worker(do_where, where):
        one.schedule_new_orchestration(where, instance_id=instance_id, input="first")
        assert two.get_orchestration_state(instance_id) is None
        two.schedule_new_orchestration(where, instance_id=instance_id, input="second")
        outputs = [json.loads(client.wait_for_orchestration_completion(instance_id, timeout=30).serialized_output)
                   for client in (one, two)]
        assert outputs == ["first", "second"]
        assert two.purge_orchestration(instance_id).deleted_instance_count == 1
        assert one.get_orchestration_state(instance_id) is not None


def test_a_call_without_a_hub_goes_to_the_first(server, fresh_id):
    instance_id = fresh_id("first")
    with Hub(server).client() as unnamed, Hub(server, "default").client() as named:
        unnamed.schedule_new_orchestration("nobody", instance_id=instance_id)
        assert named.get_orchestration_state(instance_id) is not None


def test_an_unknown_hub_is_not_found_and_told_how_to_serve_it(server, fresh_id):
    with Hub(server, "nowhere").client() as client, pytest.raises(grpc.RpcError) as caught:
        client.schedule_new_orchestration("nobody", instance_id=fresh_id("x"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "'nowhere' is not served" in caught.value.details()
    assert "--task-hub nowhere" in caught.value.details()


def test_a_worker_gets_no_more_at_once_than_it_asks_for(server, fresh_id):
    lock, running, most = threading.Lock(), [0], [0]
    barrier = threading.Event()

    def do_count(_, __):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        barrier.wait(0.02)
        with lock:
            running[0] -= 1

    def many(ctx, count):
        for task in [ctx.call_activity(do_count) for _ in range(count)]:
            yield task

    limits = ConcurrencyOptions(maximum_concurrent_activity_work_items=2, maximum_thread_pool_workers=8)
    hub = Hub(server, "second")
    with hub.worker(do_count, many, concurrency=limits), hub.client() as client:
        instance_id = client.schedule_new_orchestration(many, instance_id=fresh_id("limit"), input=12)
        assert client.wait_for_orchestration_completion(instance_id, timeout=30).runtime_status == COMPLETED
    assert most[0] == 2


def test_several_workers_share_the_work(server, fresh_id):
    counts, enough = {"a": 0, "b": 0}, threading.Barrier(2, timeout=20)

    def make(name):
        def do_meet(_, __):
            counts[name] += 1
            enough.wait()

        return do_meet

    def pair(ctx, _):
        for task in [ctx.call_activity("do_meet") for _ in range(2)]:
            yield task

    one = ConcurrencyOptions(maximum_concurrent_activity_work_items=1)
    hub = Hub(server, "second")
    with hub.worker(make("a"), pair, concurrency=one), hub.worker(make("b"), pair, concurrency=one), hub.client() as client:
        instance_id = client.schedule_new_orchestration(pair, instance_id=fresh_id("share"))
        assert client.wait_for_orchestration_completion(instance_id, timeout=30).runtime_status == COMPLETED
    assert counts == {"a": 1, "b": 1}


def test_a_worker_that_disconnects_gives_its_work_back_at_once(server, fresh_id):
    """A stream takes the work and goes away without a word; the next worker gets it."""
    hub = Hub(server, "second")
    with hub.client() as client:
        instance_id = client.schedule_new_orchestration(where, instance_id=fresh_id("back"), input="here")
        stream = client._stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=hub.metadata)
        assert next(stream).orchestratorRequest.instanceId == instance_id
        stream.cancel()
        with hub.worker(do_where, where):
            state = client.wait_for_orchestration_completion(instance_id, timeout=20)
        assert json.loads(state.serialized_output) == "here"
