"""Rewinding failed instances with the unmodified SDK: what succeeded is kept, what failed or was under way runs again."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.internal import orchestrator_service_pb2 as pb

from hubs import Hub

COMPLETED, FAILED = OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED

_runs: Counter[str] = Counter()
_broken: set[str] = set()
_slow: dict[str, tuple[threading.Event, threading.Event]] = {}


def do_count(_, name):
    """Succeeds, unless its name is broken; counts its runs."""
    _runs[name] += 1
    if name in _broken:
        raise ValueError(f"{name} is broken")
    return f"{name} {_runs[name]}"


def do_hang(_, name):
    """Runs until it is let go."""
    _runs[name] += 1
    running, go_on = _slow[name]
    running.set()
    go_on.wait(30)
    return f"{name} done"


def steps(ctx, names):
    got = []
    for name in names:
        got.append((yield ctx.call_activity(do_count, input=name)))
    return got


def fan(ctx, names):
    return (yield task.when_all([ctx.call_activity(do_count, input=name) for name in names]))


def retrying(ctx, name):
    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=20), max_number_of_attempts=3)
    first = yield ctx.call_activity(do_count, input=name, retry_policy=policy)
    return [first, (yield ctx.call_activity(do_count, input=f"{name} after"))]


def family(ctx, children):
    calls = [ctx.call_sub_orchestrator(steps, input=names, instance_id=child) for child, names in children]
    return (yield task.when_all(calls))


def nested(ctx, arguments):
    child, children = arguments
    return (yield ctx.call_sub_orchestrator(family, input=children, instance_id=child))


def retrying_family(ctx, arguments):
    child, names = arguments
    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=20), max_number_of_attempts=2)
    return (yield ctx.call_sub_orchestrator(steps, input=names, instance_id=child, retry_policy=policy))


def busy(ctx, name):
    slow, timer = ctx.call_activity(do_hang, input=f"{name} slow"), ctx.create_timer(timedelta(milliseconds=600))
    yield ctx.call_activity(do_count, input=name)
    yield timer
    return [(yield slow), (yield ctx.wait_for_external_event("go"))]


def raising(ctx, name):
    yield ctx.call_activity(do_count, input=f"{name} first")
    if name in _broken:
        raise KeyError(name)
    return "better"


@pytest.fixture(scope="module")
def client(hub: Hub) -> Iterator[TaskHubGrpcClient]:
    functions = (do_count, do_hang, steps, fan, retrying, family, nested, retrying_family, busy, raising)
    with hub.worker(*functions), hub.client() as client:
        yield client


@pytest.fixture
def name(client, hub, fresh_id):
    """A name that no other test uses, on whatever database."""
    return fresh_id(hub.server.address)


def fails(client, function, instance_id, value):
    client.schedule_new_orchestration(function, instance_id=instance_id, input=value)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert state.runtime_status == FAILED, state
    return instance_id


def output(client, instance_id):
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert state.runtime_status == COMPLETED, state
    return json.loads(state.serialized_output)


def history(client, instance_id):
    chunks = client._stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance_id))
    return [event for chunk in chunks for event in chunk.events]


def test_what_succeeded_is_kept_and_what_failed_runs_again(client, name):
    _broken.add(f"{name} b")
    instance_id = fails(client, steps, name, [f"{name} a", f"{name} b", f"{name} c"])
    _broken.clear()
    client.rewind_orchestration(instance_id, reason="mended")
    assert output(client, instance_id) == [f"{name} a 1", f"{name} b 2", f"{name} c 1"]
    state = client.get_orchestration_state(instance_id)
    assert state.failure_details is None
    assert json.loads(state.serialized_input) == [f"{name} a", f"{name} b", f"{name} c"]


def test_a_wait_that_begins_after_the_rewind_never_sees_the_old_failure(client, name):
    _broken.add(name)
    instance_id = fails(client, steps, name, [name])
    for _ in range(5):
        client.rewind_orchestration(instance_id)
        request = pb.GetInstanceRequest(instanceId=instance_id)
        seen = client._stub.GetInstance(request).orchestrationState
        assert seen.orchestrationStatus in (pb.ORCHESTRATION_STATUS_RUNNING, pb.ORCHESTRATION_STATUS_FAILED)
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        assert state.runtime_status == FAILED
    assert _runs[name] == 6
    _broken.clear()
    client.rewind_orchestration(instance_id)
    assert output(client, instance_id) == [f"{name} 7"]


def test_all_failures_of_a_fan_out_run_again_and_none_that_succeeded(client, name):
    names = [f"{name} {number}" for number in range(6)]
    _broken.update(names[::2])
    instance_id = fails(client, fan, name, names)
    _broken.clear()
    client.rewind_orchestration(instance_id)
    assert len(output(client, instance_id)) == 6
    succeeded = [event for event in history(client, instance_id) if event.HasField("taskCompleted")]
    assert len(succeeded) == 6


def test_an_exhausted_retry_gets_another_attempt_and_the_replay_stays_deterministic(client, name):
    _broken.add(name)
    instance_id = fails(client, retrying, name, name)
    assert _runs[name] == 3
    _broken.clear()
    client.rewind_orchestration(instance_id)
    assert output(client, instance_id) == [f"{name} 4", f"{name} after 1"]


def test_a_failed_child_is_rewound_with_its_parents(client, name):
    children = [[f"{name}-x", [f"{name} a", f"{name} b"]], [f"{name}-y", [f"{name} c"]]]
    _broken.add(f"{name} b")
    instance_id = fails(client, nested, name, [f"{name}-child", children])
    client.wait_for_orchestration_completion(f"{name}-y", timeout=30)
    _broken.clear()
    client.rewind_orchestration(instance_id, reason="mended")
    assert output(client, instance_id) == [[f"{name} a 1", f"{name} b 2"], [f"{name} c 1"]]
    rewound = [event for event in history(client, f"{name}-x") if event.HasField("executionRewound")]
    assert [event.executionRewound.reason.value for event in rewound] == ["mended"]


def test_a_purged_child_is_created_again(client, name):
    _broken.add(name)
    instance_id = fails(client, family, f"{name}-parent", [[f"{name}-child", [name]]])
    assert client.purge_orchestration(f"{name}-child").deleted_instance_count == 1
    _broken.clear()
    client.rewind_orchestration(instance_id)
    assert output(client, instance_id) == [[f"{name} 2"]]


def test_an_exhausted_retry_of_a_child_gets_another_attempt(client, name):
    _broken.add(name)
    instance_id = fails(client, retrying_family, f"{name}-parent", [f"{name}-child", [name]])
    assert _runs[name] == 2
    _broken.clear()
    client.rewind_orchestration(instance_id)
    assert output(client, instance_id) == [f"{name} 3"]


def test_a_child_can_be_rewound_alone(client, name):
    _broken.add(name)
    parent = fails(client, family, f"{name}-parent", [[f"{name}-child", [name]]])
    _broken.clear()
    client.rewind_orchestration(f"{name}-child")
    assert output(client, f"{name}-child") == [f"{name} 2"]
    assert client.get_orchestration_state(parent).runtime_status == FAILED
    client.rewind_orchestration(parent)
    assert output(client, parent) == [[f"{name} 2"]]


def test_what_was_under_way_is_armed_again_and_its_late_result_dropped(client, name):
    """An activity that runs, a timer that has not fired and an event that was not raised, all across the failure."""
    _slow[f"{name} slow"] = running, go_on = threading.Event(), threading.Event()
    _broken.add(name)
    instance_id = client.schedule_new_orchestration(busy, instance_id=name, input=name)
    assert running.wait(20)
    assert client.wait_for_orchestration_completion(instance_id, timeout=30).runtime_status == FAILED
    _broken.clear()
    running.clear()
    client.rewind_orchestration(instance_id)
    client.raise_orchestration_event(instance_id, "go", data="event")
    assert running.wait(20)
    go_on.set()
    assert output(client, instance_id) == [f"{name} slow done", "event"]
    assert _runs[f"{name} slow"] == 2
    kinds = Counter(event.WhichOneof("eventType") for event in history(client, instance_id))
    assert (kinds["taskScheduled"], kinds["taskCompleted"], kinds["timerCreated"], kinds["timerFired"]) == (2, 2, 1, 1)


def test_an_orchestration_that_failed_by_itself_is_run_again(client, name):
    _broken.add(name)
    instance_id = fails(client, raising, name, name)
    _broken.clear()
    client.rewind_orchestration(instance_id)
    assert output(client, instance_id) == "better"
    assert _runs[f"{name} first"] == 1


def test_rewinding_twice_works(client, name):
    _broken.update((f"{name} a", f"{name} b"))
    instance_id = fails(client, steps, name, [f"{name} a", f"{name} b"])
    for mended in ("a", "b"):
        _broken.discard(f"{name} {mended}")
        client.rewind_orchestration(instance_id, reason=mended)
        client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert output(client, instance_id) == [f"{name} a 2", f"{name} b 2"]
    reasons = [event.executionRewound.reason.value for event in history(client, instance_id)
               if event.HasField("executionRewound")]
    assert reasons == ["a", "b"]


def test_a_rewind_of_what_has_not_failed_or_is_not_there_is_refused(client, name):
    _slow[f"{name} slow"] = running, go_on = threading.Event(), threading.Event()
    client.schedule_new_orchestration(busy, instance_id=name, input=name)
    assert running.wait(20)
    for instance_id, code, word in ((name, grpc.StatusCode.FAILED_PRECONDITION, "running"),
                                    (f"{name} nobody", grpc.StatusCode.NOT_FOUND, "nobody")):
        with pytest.raises(grpc.RpcError) as caught:
            client.rewind_orchestration(instance_id)
        assert caught.value.code() is code
        assert word in caught.value.details()
    go_on.set()
    client.raise_orchestration_event(name, "go")
    assert output(client, name)[0] == f"{name} slow done"


def test_workers_see_neither_the_rewind_nor_the_old_end(server, fresh_id):
    """Some SDKs' workers crash on either; with a worker made by hand, on a hub of its own."""
    hub = Hub(server, "second")
    with hub.client() as client:
        stub, instance_id = client._stub, fresh_id("seen")
        client.schedule_new_orchestration("n", instance_id=instance_id)
        items = stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=hub.metadata)

        def answer(token, *actions):
            stub.CompleteOrchestratorTask(pb.OrchestratorResponse(instanceId=instance_id, completionToken=token, actions=actions))

        def ending(status):
            done = pb.CompleteOrchestrationAction(orchestrationStatus=status)
            return pb.OrchestratorAction(id=9, completeOrchestration=done)

        answer(next(items).completionToken, ending(pb.ORCHESTRATION_STATUS_FAILED))
        before = client._stub.GetInstance(pb.GetInstanceRequest(instanceId=instance_id)).orchestrationState.executionId.value
        client.rewind_orchestration(instance_id)
        for turn in range(2):
            item = next(items)
            request = item.orchestratorRequest
            past = [event.WhichOneof("eventType") for event in request.pastEvents]
            assert past == ["orchestratorStarted", "executionStarted", "orchestratorStarted"][:2 + turn]
            assert [event.WhichOneof("eventType") for event in request.newEvents] == [
                "orchestratorStarted", "eventRaised"][:1 + turn]
            assert request.executionId.value != before
            assert request.pastEvents[1].executionStarted.orchestrationInstance.executionId.value == request.executionId.value
            answer(item.completionToken, *[ending(pb.ORCHESTRATION_STATUS_COMPLETED)] * turn)
            client.raise_orchestration_event(instance_id, "go")
        items.cancel()
        assert [event.WhichOneof("eventType") for event in history(client, instance_id)] == [
            "orchestratorStarted", "executionStarted", "executionRewound", "orchestratorStarted", "orchestratorStarted",
            "eventRaised", "executionCompleted"]
