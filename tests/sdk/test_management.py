"""Listing, restarting, purging and ending instances at once, through the SDK's client or its raw stub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from hubs import Hub

COMPLETED, FAILED, TERMINATED, RUNNING = (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED,
                                          OrchestrationStatus.TERMINATED, OrchestrationStatus.RUNNING)


def quick(_, value):
    return value


def failing(_, text):
    raise ValueError(text)


def waiting(ctx, _):
    return (yield ctx.wait_for_external_event("go"))


def describing(ctx, value):
    return {"version": ctx.version, "input": value}


def family(ctx, child_ids):
    yield task.when_all([ctx.call_sub_orchestrator(waiting, instance_id=child_id) for child_id in child_ids])


def tolerant(ctx, child_id):
    try:
        return (yield ctx.call_sub_orchestrator(waiting, instance_id=child_id))
    except task.TaskFailedError as error:
        return str(error)


@pytest.fixture(scope="module")
def client(hub: Hub) -> Iterator[TaskHubGrpcClient]:
    with hub.worker(quick, failing, waiting, describing, family, tolerant), hub.client() as client:
        yield client


def run(client, function, instance_id, value=None, **options):
    client.schedule_new_orchestration(function, instance_id=instance_id, input=value, **options)
    return client.wait_for_orchestration_completion(instance_id, timeout=30)


def started(client, function, instance_id, value=None):
    client.schedule_new_orchestration(function, instance_id=instance_id, input=value)
    client.wait_for_orchestration_start(instance_id, timeout=30)
    return instance_id


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def state_of(client, instance_id):
    request = pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)
    return client._stub.GetInstance(request).orchestrationState


def skip(client, ids, reason=None):
    request = pb.SkipGracefulOrchestrationTerminationsRequest(instanceBatch=pb.InstanceBatch(instanceIds=ids))
    if reason is not None:
        request.reason.value = reason
    return list(client._stub.SkipGracefulOrchestrationTerminations(request).unterminatedInstanceIds)


def purge(client, **request):
    return client._stub.PurgeInstances(pb.PurgeInstancesRequest(**request))


# Lists of what has ended


def test_ended_instances_are_listed_page_by_page(client, fresh_id):
    before = datetime.now(UTC)
    ids = [run(client, quick, fresh_id("l"), number).instance_id for number in range(5)]
    live = started(client, waiting, fresh_id("l"))
    token, found = None, []
    while True:
        page = client.list_instance_ids(completed_time_from=before, page_size=2, continuation_token=token)
        assert 0 < len(page.items) <= 2
        found += page.items
        token = page.continuation_token
        if token is None:
            break
        assert page.items[-1] in token
    assert found == ids
    assert live not in found


def test_a_page_that_holds_the_rest_is_the_last(client, fresh_id):
    before = datetime.now(UTC)
    ids = [run(client, quick, fresh_id("l")).instance_id for _ in range(2)]
    page = client.list_instance_ids(completed_time_from=before, page_size=2)
    assert (page.items, page.continuation_token) == (ids, None)


def test_an_empty_key_begins_at_the_beginning(client, fresh_id):
    before = datetime.now(UTC)
    instance_id = run(client, quick, fresh_id("l")).instance_id
    page = client.list_instance_ids(completed_time_from=before, continuation_token="")
    assert page.items == [instance_id]


def test_a_list_filters_by_status_and_completion_time(client, fresh_id):
    before = datetime.now(UTC)
    done = run(client, quick, fresh_id("l")).instance_id
    failed = run(client, failing, fresh_id("l"), "x").instance_id
    assert client.list_instance_ids([FAILED], completed_time_from=before).items == [failed]
    assert client.list_instance_ids([COMPLETED, FAILED], completed_time_from=before).items == [done, failed]
    assert client.list_instance_ids([RUNNING], completed_time_from=before).items == []
    assert done not in client.list_instance_ids(completed_time_to=before).items


# Restart


def test_an_ended_instance_is_restarted_under_its_id_with_name_input_version_and_tags(client, fresh_id):
    instance_id = fresh_id("r")
    run(client, describing, instance_id, [1, "ü"], version="1.5", tags={"team": "blue"})
    before = state_of(client, instance_id)
    assert client.restart_orchestration(instance_id) == instance_id
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == {"version": "1.5", "input": [1, "ü"]}
    after = state_of(client, instance_id)
    assert (after.name, after.input, dict(after.tags)) == (before.name, before.input, {"team": "blue"})
    assert after.executionId.value != before.executionId.value
    assert after.createdTimestamp.ToDatetime() > before.createdTimestamp.ToDatetime()


def test_a_running_instance_is_restarted_under_a_new_id_only(client, fresh_id):
    instance_id = started(client, waiting, fresh_id("r"), "in")
    error = refusal(lambda: client.restart_orchestration(instance_id))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "cannot be restarted" in error.details()
    other = client.restart_orchestration(instance_id, restart_with_new_instance_id=True)
    assert len(other) == 32
    assert other != instance_id
    for one in (instance_id, other):
        client.raise_orchestration_event(one, "go", data=one)
        state = client.wait_for_orchestration_completion(one, timeout=30)
        assert (json.loads(state.serialized_output), json.loads(state.serialized_input)) == (one, "in")


@pytest.mark.parametrize("with_new_id", [False, True])
def test_a_restart_of_an_unknown_instance_is_not_found(client, fresh_id, with_new_id):
    error = refusal(lambda: client.restart_orchestration(fresh_id("no"), restart_with_new_instance_id=with_new_id))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("with_new_id", [True, False])
def test_an_entity_is_no_instance_that_could_be_restarted_or_rewound(client, with_new_id):
    request = pb.RestartInstanceRequest(instanceId="@counter@one", restartWithNewInstanceId=with_new_id)
    for call in (lambda: client._stub.RestartInstance(request),
                 lambda: client._stub.RewindInstance(pb.RewindInstanceRequest(instanceId="@counter@one"))):
        error = refusal(call)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert "@counter@one" in error.details()


def test_a_restarted_sub_orchestration_has_no_parent_any_more(client, fresh_id):
    child = fresh_id("child")
    client.schedule_new_orchestration(family, instance_id=fresh_id("p"), input=[child])
    client.wait_for_orchestration_start(child, timeout=30)
    assert state_of(client, child).HasField("parentInstanceId")
    client.terminate_orchestration(child)
    client.wait_for_orchestration_completion(child, timeout=30)
    client.restart_orchestration(child)
    assert not state_of(client, child).HasField("parentInstanceId")


# Purge


def test_a_batch_is_purged_and_only_what_has_ended(client, fresh_id):
    ids = [run(client, quick, fresh_id("b")).instance_id for _ in range(3)]
    live = started(client, waiting, fresh_id("b"))
    answer = purge(client, instanceBatch=pb.InstanceBatch(instanceIds=[*ids, ids[0], live, fresh_id("no")]))
    assert (answer.deletedInstanceCount, answer.isComplete.value) == (3, True)
    assert state_of(client, live).name == "waiting"


def test_a_filter_purges_by_creation_time_and_status(client, fresh_id):
    before = datetime.now(UTC)
    run(client, quick, fresh_id("f"))
    failed = run(client, failing, fresh_id("f"), "x").instance_id
    live = started(client, waiting, fresh_id("f"))
    done = client.purge_orchestrations_by(created_time_from=before, runtime_status=[COMPLETED, RUNNING])
    assert (done.deleted_instance_count, done.is_complete) == (1, True)
    assert client.purge_orchestrations_by(created_time_from=before, runtime_status=[RUNNING]).deleted_instance_count == 0
    assert client.get_orchestration_state(failed) is not None
    assert client.purge_orchestrations_by(created_time_from=before).deleted_instance_count == 1
    assert client.get_orchestration_state(live) is not None
    assert client.purge_orchestrations_by(created_time_to=before - timedelta(days=1)).deleted_instance_count == 0


def test_a_filter_purges_recursively(client, fresh_id):
    before, child = datetime.now(UTC), fresh_id("child")
    parent = client.schedule_new_orchestration(family, instance_id=fresh_id("p"), input=[child])
    client.wait_for_orchestration_start(child, timeout=30)
    between = datetime.now(UTC)
    client.raise_orchestration_event(child, "go")
    client.wait_for_orchestration_completion(parent, timeout=30)
    late = run(client, quick, fresh_id("f")).instance_id
    done = client.purge_orchestrations_by(created_time_from=before, created_time_to=between, recursive=True)
    assert done.deleted_instance_count == 2
    assert client.get_orchestration_state(child) is None
    assert client.get_orchestration_state(late) is not None


def test_a_purge_without_time_stops_and_says_that_there_is_more(client, fresh_id):
    before = datetime.now(UTC)
    run(client, quick, fresh_id("f"))
    wanted = pb.PurgeInstanceFilter(timeout=Duration())
    wanted.createdTimeFrom.FromDatetime(before)
    answer = purge(client, purgeInstanceFilter=wanted)
    assert (answer.deletedInstanceCount, answer.HasField("isComplete"), answer.isComplete.value) == (0, True, False)
    done = client.purge_orchestrations_by(created_time_from=before, timeout=timedelta(minutes=1))
    assert (done.deleted_instance_count, done.is_complete) == (1, True)


def test_an_orchestration_purge_leaves_entities_alone(client):
    answer = purge(client, instanceId="@counter@one", isOrchestration=True)
    assert (answer.deletedInstanceCount, answer.isComplete.value) == (0, True)


def test_a_terminated_parent_is_purged_recursively_at_once(client, fresh_id):
    child = fresh_id("child")
    parent = started(client, family, fresh_id("p"), [child])
    client.wait_for_orchestration_start(child, timeout=30)
    client.terminate_orchestration(parent, recursive=True)
    client.wait_for_orchestration_completion(parent, timeout=30)
    assert client.purge_orchestration(parent, recursive=True).deleted_instance_count >= 1
    assert client.get_orchestration_state(parent) is None


# Ending at once


def test_instances_are_ended_without_their_worker(client, fresh_id):
    ids = [started(client, waiting, fresh_id("s")) for _ in range(2)]
    scheduled = client.schedule_new_orchestration(quick, instance_id=fresh_id("s"),
                                                  start_at=datetime.now(UTC) + timedelta(hours=1))
    done, unknown = run(client, quick, fresh_id("s")).instance_id, fresh_id("no")
    left = skip(client, [done, *ids, unknown, "@counter@one", scheduled], '"enough"')
    assert left == [done, unknown, "@counter@one"]
    for instance_id in (*ids, scheduled):
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        assert (state.runtime_status, json.loads(state.serialized_output)) == (TERMINATED, "enough")
    assert client.get_orchestration_state(done).runtime_status == COMPLETED


def test_a_parent_hears_of_a_child_that_was_ended_at_once(client, fresh_id):
    child = fresh_id("child")
    parent = started(client, tolerant, fresh_id("p"), child)
    client.wait_for_orchestration_start(child, timeout=30)
    assert skip(client, [child], "why not") == []
    state = client.wait_for_orchestration_completion(parent, timeout=30)
    assert "why not" in json.loads(state.serialized_output)


def test_what_a_worker_has_out_of_an_instance_that_was_ended_at_once_is_stale(server, fresh_id):
    """On a hub of its own, with a worker made by hand: its answer comes too late, and changes nothing."""
    hub = Hub(server, "second")
    with hub.client() as client:
        stub, instance_id = client._stub, fresh_id("stale")
        client.schedule_new_orchestration("n", instance_id=instance_id)
        items = stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=hub.metadata)
        item = next(items)
        assert skip(client, [instance_id], '"over"') == []
        done = pb.CompleteOrchestrationAction(orchestrationStatus=pb.ORCHESTRATION_STATUS_COMPLETED)
        stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
            instanceId=instance_id, completionToken=item.completionToken,
            actions=[pb.OrchestratorAction(id=0, completeOrchestration=done)]))
        state = client.get_orchestration_state(instance_id)
        assert (state.runtime_status, state.serialized_output) == (TERMINATED, '"over"')
        # The id can be used again at once, by the same worker.
        client.schedule_new_orchestration("n", instance_id=instance_id)
        assert next(items).orchestratorRequest.instanceId == instance_id
        items.cancel()
        skip(client, [instance_id])
