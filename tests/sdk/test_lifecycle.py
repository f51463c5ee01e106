"""What clients do to instances: terminate, suspend, schedule, reuse ids, purge, query, read histories."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationQuery, OrchestrationStatus, TaskHubGrpcClient
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub
from google.protobuf import unknown_fields

from hubs import Hub

COMPLETED, TERMINATED, RUNNING = (OrchestrationStatus.COMPLETED, OrchestrationStatus.TERMINATED,
                                  OrchestrationStatus.RUNNING)


def do_echo(_, value):
    return value


def quick(_, value):
    return value


def waiting(ctx, _):
    return (yield ctx.wait_for_external_event("go"))


def gathering(ctx, count):
    got = []
    for _ in range(count):
        got.append((yield ctx.wait_for_external_event("item")))
    return got


def family(ctx, child_ids):
    yield task.when_all([ctx.call_sub_orchestrator(waiting, instance_id=child_id) for child_id in child_ids])


def tolerant(ctx, child_id):
    try:
        return (yield ctx.call_sub_orchestrator(waiting, instance_id=child_id))
    except task.TaskFailedError as error:
        return str(error)


def three_steps(ctx, _):
    yield ctx.call_activity(do_echo, input=1)
    yield ctx.create_timer(ctx.current_utc_datetime + timedelta(milliseconds=50))
    yield ctx.call_sub_orchestrator(quick, input=2)


def versioned(ctx, _):
    return ctx.version


@pytest.fixture(scope="module")
def client(hub: Hub) -> Iterator[TaskHubGrpcClient]:
    with hub.worker(do_echo, quick, waiting, gathering, family, tolerant, three_steps, versioned), hub.client() as client:
        yield client


def started(client, function, instance_id, value=None):
    client.schedule_new_orchestration(function, instance_id=instance_id, input=value)
    client.wait_for_orchestration_start(instance_id, timeout=30)
    return instance_id


def ended(client, instance_id):
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    return state.runtime_status


def raw_state(client, instance_id):
    return client._stub.GetInstance(pb.GetInstanceRequest(instanceId=instance_id, getInputsAndOutputs=True)).orchestrationState


def test_terminate_ends_a_running_instance_with_its_output(client, fresh_id):
    instance_id = started(client, waiting, fresh_id("t"))
    client.terminate_orchestration(instance_id, output="enough")
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert state.runtime_status == TERMINATED
    assert json.loads(state.serialized_output) == "enough"
    assert state.failure_details is None


def test_terminate_takes_the_children_along_when_recursive(client, fresh_id):
    children = [fresh_id("child") for _ in range(3)]
    parent = started(client, family, fresh_id("parent"), children)
    for child in children:
        client.wait_for_orchestration_start(child, timeout=30)
    client.terminate_orchestration(parent, recursive=True)
    assert [ended(client, one) for one in (parent, *children)] == [TERMINATED] * 4


def test_terminate_leaves_the_children_alone_when_not_recursive(client, fresh_id):
    child = fresh_id("child")
    parent = started(client, family, fresh_id("parent"), [child])
    client.wait_for_orchestration_start(child, timeout=30)
    client.terminate_orchestration(parent, recursive=False)
    assert ended(client, parent) == TERMINATED
    assert client.get_orchestration_state(child).runtime_status == RUNNING
    client.raise_orchestration_event(child, "go")
    assert ended(client, child) == COMPLETED


def test_a_terminated_child_fails_for_its_parent(client, fresh_id):
    child = fresh_id("child")
    parent = started(client, tolerant, fresh_id("parent"), child)
    client.wait_for_orchestration_start(child, timeout=30)
    client.terminate_orchestration(child, output="no more")
    state = client.wait_for_orchestration_completion(parent, timeout=30)
    assert "terminated" in json.loads(state.serialized_output)


def test_terminate_of_a_scheduled_instance_ends_it_for_good(client, fresh_id):
    start_at = datetime.now(UTC) + timedelta(seconds=1)
    instance_id = client.schedule_new_orchestration(waiting, instance_id=fresh_id("s"), start_at=start_at)
    client.terminate_orchestration(instance_id, output="never")
    assert ended(client, instance_id) == TERMINATED
    # An instance scheduled behind it, on the same server, runs: so the terminated one's time has passed too.
    later = client.schedule_new_orchestration(quick, instance_id=fresh_id("s"), start_at=start_at + timedelta(seconds=0.2))
    assert ended(client, later) == COMPLETED
    assert client.get_orchestration_state(instance_id).runtime_status == TERMINATED


def test_terminate_of_an_unknown_or_ended_instance_changes_nothing(client, fresh_id):
    client.terminate_orchestration(fresh_id("unknown"))
    instance_id = started(client, quick, fresh_id("t"), 1)
    assert ended(client, instance_id) == COMPLETED
    client.terminate_orchestration(instance_id)
    assert client.get_orchestration_state(instance_id).runtime_status == COMPLETED


def poll(client, instance_id, status):
    """Suspension is not something that a client can wait for: ask until it shows."""
    until = time.monotonic() + 30
    while (state := client.get_orchestration_state(instance_id)).runtime_status != status:
        assert time.monotonic() < until, f"{instance_id} did not become {status}: {state}"
        time.sleep(0.01)
    return state


def test_a_suspended_instance_holds_its_events_until_it_is_resumed(client, fresh_id):
    instance_id = started(client, gathering, fresh_id("s"), 5)
    client.raise_orchestration_event(instance_id, "item", data=0)
    client.suspend_orchestration(instance_id, reason="lunch")
    poll(client, instance_id, OrchestrationStatus.SUSPENDED)
    for number in range(1, 5):
        client.raise_orchestration_event(instance_id, "item", data=number)
    assert client.get_orchestration_state(instance_id).runtime_status == OrchestrationStatus.SUSPENDED
    client.resume_orchestration(instance_id)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == list(range(5))


def test_a_suspended_instance_can_be_terminated(client, fresh_id):
    instance_id = started(client, waiting, fresh_id("s"))
    client.suspend_orchestration(instance_id)
    poll(client, instance_id, OrchestrationStatus.SUSPENDED)
    client.terminate_orchestration(instance_id)
    assert ended(client, instance_id) == TERMINATED


def test_a_scheduled_start_waits_for_its_time(client, fresh_id):
    start_at = datetime.now(UTC) + timedelta(milliseconds=700)
    far = client.schedule_new_orchestration(quick, instance_id=fresh_id("s"), start_at=start_at + timedelta(hours=1))
    instance_id = client.schedule_new_orchestration(quick, instance_id=fresh_id("s"), start_at=start_at)
    assert ended(client, instance_id) == COMPLETED
    first = raw_state(client, instance_id)
    assert first.lastUpdatedTimestamp.ToDatetime(UTC) >= start_at
    assert first.scheduledStartTimestamp.ToDatetime(UTC) == start_at
    assert client.get_orchestration_state(far).runtime_status == OrchestrationStatus.PENDING
    client.terminate_orchestration(far)


def test_events_for_a_scheduled_instance_wait_with_it(client, fresh_id):
    start_at = datetime.now(UTC) + timedelta(milliseconds=500)
    instance_id = client.schedule_new_orchestration(waiting, instance_id=fresh_id("s"), start_at=start_at)
    client.raise_orchestration_event(instance_id, "go", data="early")
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == "early"


def test_tags_and_version_are_kept_and_children_inherit_tags(client, fresh_id):
    child = fresh_id("child")
    parent = client.schedule_new_orchestration(family, instance_id=fresh_id("p"), input=[child],
                                               tags={"team": "blue", "ünï": "çödé"}, version="1.2.3")
    client.wait_for_orchestration_start(child, timeout=30)
    client.raise_orchestration_event(child, "go")
    assert ended(client, parent) == COMPLETED
    assert dict(raw_state(client, parent).tags) == {"team": "blue", "ünï": "çödé"}
    assert raw_state(client, parent).version.value == "1.2.3"
    assert dict(raw_state(client, child).tags) == {"team": "blue", "ünï": "çödé"}
    assert not raw_state(client, child).HasField("version")
    assert raw_state(client, child).parentInstanceId.value == parent


def test_an_orchestrator_sees_its_version(client, fresh_id):
    instance_id = client.schedule_new_orchestration(versioned, instance_id=fresh_id("v"), version="2.0")
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == "2.0"


def test_an_id_in_use_is_refused_and_an_ended_one_is_replaced(client, fresh_id):
    instance_id = started(client, waiting, fresh_id("r"))
    with pytest.raises(grpc.RpcError) as caught:
        client.schedule_new_orchestration(waiting, instance_id=instance_id)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    assert "already exists" in caught.value.details()
    client.raise_orchestration_event(instance_id, "go", data=1)
    assert ended(client, instance_id) == COMPLETED
    client.schedule_new_orchestration(quick, instance_id=instance_id, input="again")
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == "again"


def test_a_policy_says_which_statuses_may_be_replaced(client, fresh_id):
    instance_id = started(client, waiting, fresh_id("r"))
    first = raw_state(client, instance_id).executionId.value
    live = [pb.ORCHESTRATION_STATUS_RUNNING, pb.ORCHESTRATION_STATUS_PENDING]
    with pytest.raises(grpc.RpcError) as caught:
        client.schedule_new_orchestration(waiting, instance_id=instance_id,
                                          reuse_id_policy=pb.OrchestrationIdReusePolicy(replaceableStatus=live))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Invalid reusable statuses" in caught.value.details()
    policy = pb.OrchestrationIdReusePolicy(replaceableStatus=[*live, pb.ORCHESTRATION_STATUS_TERMINATED])
    client.schedule_new_orchestration(waiting, instance_id=instance_id, reuse_id_policy=policy)
    client.wait_for_orchestration_start(instance_id, timeout=30)
    assert raw_state(client, instance_id).executionId.value != first
    with pytest.raises(grpc.RpcError) as caught:
        client.schedule_new_orchestration(waiting, instance_id=instance_id,
                                          reuse_id_policy=pb.OrchestrationIdReusePolicy())
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(("action", "replaced"), [(1, False), (2, True)])
def test_the_old_policy_form_is_understood_by_its_action(client, fresh_id, action, replaced):
    instance_id = started(client, waiting, fresh_id("r"))
    first = raw_state(client, instance_id).executionId.value
    old = pb.OrchestrationIdReusePolicy.FromString(
        pb.OrchestrationIdReusePolicy(replaceableStatus=[0]).SerializeToString() + bytes([0x10, action]))
    assert len(unknown_fields.UnknownFieldSet(old)) == 1
    client.schedule_new_orchestration(waiting, instance_id=instance_id, reuse_id_policy=old)
    assert (raw_state(client, instance_id).executionId.value != first) is replaced


def test_a_go_clients_policy_without_an_action_refuses_what_it_lists(server, client, fresh_id):
    """The old form's action ERROR is never on the wire: only who calls tells it from the new form."""
    instance_id = started(client, waiting, fresh_id("r"))
    policy = pb.OrchestrationIdReusePolicy(replaceableStatus=[pb.ORCHESTRATION_STATUS_RUNNING, pb.ORCHESTRATION_STATUS_TERMINATED])
    request = pb.CreateInstanceRequest(instanceId=instance_id, name="waiting", orchestrationIdReusePolicy=policy)
    with grpc.insecure_channel(server.address, options=[("grpc.primary_user_agent", "grpc-go/1.65.0")]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            TaskHubSidecarServiceStub(channel).StartInstance(request)
        assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    client._stub.StartInstance(request)


def test_of_many_clients_that_create_one_id_exactly_one_wins(client, fresh_id):
    instance_id = fresh_id("race")

    def create(number):
        try:
            client.schedule_new_orchestration(waiting, instance_id=instance_id, input=number)
        except grpc.RpcError as error:
            return error.code()
        return None

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(create, range(20)))
    assert outcomes.count(None) == 1
    assert outcomes.count(grpc.StatusCode.ALREADY_EXISTS) == 19


def test_purge_deletes_an_ended_instance_and_no_other(client, fresh_id):
    running = started(client, waiting, fresh_id("purge"))
    assert client.purge_orchestration(running).deleted_instance_count == 0
    longer = started(client, quick, running + "d", 1)
    assert ended(client, longer) == COMPLETED
    client.raise_orchestration_event(running, "go")
    assert ended(client, running) == COMPLETED
    assert client.purge_orchestration(running).deleted_instance_count == 1
    assert client.purge_orchestration(running).deleted_instance_count == 0
    assert client.get_orchestration_state(running) is None
    assert client.get_orchestration_state(longer) is not None


def test_a_recursive_purge_takes_the_children_along(client, fresh_id):
    children = [fresh_id("child") for _ in range(2)]
    parent = started(client, family, fresh_id("parent"), children)
    for child in children:
        client.raise_orchestration_event(child, "go") if client.wait_for_orchestration_start(child, timeout=30) else None
    assert ended(client, parent) == COMPLETED
    assert client.purge_orchestration(parent, recursive=True).deleted_instance_count == 3
    assert client.get_orchestration_state(children[0]) is None


def pages(client, prefix, size):
    token, found = None, []
    while True:
        query = pb.InstanceQuery(maxInstanceCount=size, fetchInputsAndOutputs=True)
        query.instanceIdPrefix.value = prefix
        if token is not None:
            query.continuationToken.value = token
        answer = client._stub.QueryInstances(pb.QueryInstancesRequest(query=query))
        found.append([state.instanceId for state in answer.orchestrationState])
        if not answer.HasField("continuationToken"):
            return found
        token = answer.continuationToken.value


def test_queries_page_through_exactly_what_has_the_prefix(client, fresh_id):
    prefix = fresh_id("100%_sure'@")
    ids = [f"{prefix}{number}" for number in range(7)]
    for instance_id in ids:
        client.schedule_new_orchestration(waiting, instance_id=instance_id)
    client.schedule_new_orchestration(waiting, instance_id=prefix.replace("%", "x").replace("_", "y"))
    assert pages(client, prefix, 3) == [ids[:3], ids[3:6], ids[6:]]
    assert pages(client, prefix, 7) == [ids]


def test_queries_filter_by_status_and_time_and_leave_payloads_out(client, fresh_id):
    prefix = fresh_id("q")
    before = datetime.now(UTC)
    running = started(client, waiting, f"{prefix}-a")
    done = started(client, quick, f"{prefix}-b", "text")
    assert ended(client, done) == COMPLETED
    query = OrchestrationQuery(instance_id_prefix=prefix, runtime_status=[RUNNING], created_time_from=before)
    assert [state.instance_id for state in client.get_all_orchestration_states(query)] == [running]
    query = OrchestrationQuery(instance_id_prefix=prefix, runtime_status=[COMPLETED])
    found = client.get_all_orchestration_states(query)
    assert [(state.instance_id, state.serialized_input, state.serialized_output) for state in found] == [(done, None, None)]
    query = OrchestrationQuery(instance_id_prefix=prefix, created_time_to=before)
    assert client.get_all_orchestration_states(query) == []


def test_a_history_reads_back_event_by_event(client, fresh_id):
    instance_id = started(client, three_steps, fresh_id("h"))
    assert ended(client, instance_id) == COMPLETED
    stream = client._stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance_id))
    events = [event for chunk in stream for event in chunk.events]
    assert [event.WhichOneof("eventType") for event in events] == [
        "orchestratorStarted", "executionStarted", "taskScheduled", "orchestratorStarted", "taskCompleted", "timerCreated",
        "orchestratorStarted", "timerFired", "subOrchestrationInstanceCreated", "orchestratorStarted",
        "subOrchestrationInstanceCompleted", "executionCompleted"]
    ids = [event.eventId for event in events if event.eventId >= 0]
    assert ids == sorted(set(ids))
    assert all(event.HasField("timestamp") and event.timestamp.seconds for event in events)
    assert events[4].taskCompleted.taskScheduledId == events[2].eventId


def test_the_history_of_an_unknown_instance_is_not_found(client, fresh_id):
    with pytest.raises(grpc.RpcError) as caught:
        list(client._stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=fresh_id("none"))))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_an_unknown_instance_does_not_exist_and_a_wait_for_it_times_out(client, fresh_id):
    instance_id = fresh_id("unknown")
    assert client.get_orchestration_state(instance_id) is None
    with pytest.raises(TimeoutError):
        client.wait_for_orchestration_completion(instance_id, timeout=0.3)


@pytest.mark.parametrize("name", ["percent%", "under_score", "quote'", "a@b", "with space", "slash/\\#?", "CASE", "case",
                                  "x" * 250])
def test_ids_with_any_printable_character_work(client, fresh_id, name):
    instance_id = (fresh_id("i") + name)[:256]
    client.schedule_new_orchestration(quick, instance_id=instance_id, input=name)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == name
