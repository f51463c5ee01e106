"""Bad input gets the status that the SDKs expect, a text that says what to do, and changes nothing."""

from __future__ import annotations

import base64
import functools

import grpc
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
METHODS = pb.DESCRIPTOR.services_by_name["TaskHubSidecarService"].methods


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return TaskHubSidecarServiceStub(channel)


def refused(call, code, *words):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code, caught.value
    for word in words:
        assert word in caught.value.details()


def count(stub):
    return len(stub.QueryInstances(pb.QueryInstancesRequest(query=pb.InstanceQuery(maxInstanceCount=1000))).orchestrationState)


@pytest.mark.parametrize(("instance_id", "name", "words"), [
    ("good", "", ("orchestrator name", "empty")),
    ("good", "n" * 301, ("orchestrator name", "300")),
    ("good", "a\nb", ("control character",)),
    ("good", "a\0b", ("control character",)),
    ("i" * 257, "n", ("257", "256")),
    ("@entity@key", "n", ("'@'", "entities")),
    ("a\tb", "n", ("control character",)),
])
def test_names_and_ids_that_cannot_be_are_refused(stub, instance_id, name, words):
    before = count(stub)
    refused(lambda: stub.StartInstance(pb.CreateInstanceRequest(instanceId=instance_id, name=name)), INVALID, *words)
    assert count(stub) == before


def test_the_longest_id_is_accepted(stub, fresh_id):
    instance_id = fresh_id("x").ljust(256, "x")
    assert stub.StartInstance(pb.CreateInstanceRequest(instanceId=instance_id, name="n")).instanceId == instance_id


def test_a_payload_over_the_limit_is_refused(stub, fresh_id):
    before, text = count(stub), "x" * (16 * 1024 * 1024 + 1)
    request = pb.CreateInstanceRequest(instanceId=fresh_id("big"), name="n")
    request.input.value = text
    refused(lambda: stub.StartInstance(request), INVALID, "input", "16777217", "reference")
    event = pb.RaiseEventRequest(instanceId="any", name="e")
    event.input.value = text
    refused(lambda: stub.RaiseEvent(event), INVALID, "event", "16777216")
    assert count(stub) == before


@pytest.mark.parametrize("seconds", [-62135596801, 253402300800])
def test_impossible_times_are_refused(stub, fresh_id, seconds):
    before = count(stub)
    request = pb.CreateInstanceRequest(instanceId=fresh_id("t"), name="n", scheduledStartTimestamp=Timestamp(seconds=seconds))
    refused(lambda: stub.StartInstance(request), INVALID, "scheduledStartTimestamp", "years 1 and 9999")
    query = pb.InstanceQuery(createdTimeFrom=Timestamp(seconds=seconds))
    refused(lambda: stub.QueryInstances(pb.QueryInstancesRequest(query=query)), INVALID, "createdTimeFrom")
    assert count(stub) == before


def test_a_status_that_does_not_exist_and_a_broken_token_are_refused(stub):
    refused(lambda: stub.QueryInstances(pb.QueryInstancesRequest(query=pb.InstanceQuery(runtimeStatus=[99]))), INVALID, "99")
    for place in (b"broken", b"[]", b'[1, "a\\u0000"]', b'[1, "\\ud800"]', b'[%d, "a"]' % 10**30, b'[1e999, "a"]',
                  b"[" * 5_000, "\u2603".encode() * 50_000):
        query = pb.InstanceQuery()
        query.continuationToken.value = base64.urlsafe_b64encode(place).decode()
        request = pb.QueryInstancesRequest(query=query)
        refused(functools.partial(stub.QueryInstances, request), INVALID, "continuation token")


def test_what_no_database_could_hold_is_refused_wherever_it_stands(stub, fresh_id):
    """PostgreSQL's texts hold no NUL: what would be kept in one, or looked for, is refused before it is asked."""
    instance_id, nul = fresh_id("nul"), {"value": "a\0b"}
    refused(lambda: stub.StartInstance(pb.CreateInstanceRequest(instanceId=instance_id, name="n", version=nul)),
            INVALID, "version", "control character")
    query = pb.InstanceQuery(instanceIdPrefix=nul)
    refused(lambda: stub.QueryInstances(pb.QueryInstancesRequest(query=query)), INVALID, "prefix", "control character")
    for query in (pb.EntityQuery(instanceIdStartsWith=nul), pb.EntityQuery(continuationToken=nul)):
        refused(lambda query=query: stub.QueryEntities(pb.QueryEntitiesRequest(query=query)), INVALID, "control character")
    cleaning = pb.CleanEntityStorageRequest(releaseOrphanedLocks=True, continuationToken=nul)
    refused(lambda: stub.CleanEntityStorage(cleaning), INVALID, "continuation token", "control character")
    stub.StartInstance(pb.CreateInstanceRequest(instanceId=instance_id, name="n", input=nul, tags={"a\0": "\0"}))
    history = pb.StreamInstanceHistoryRequest(instanceId=instance_id, executionId=nul)
    refused(lambda: list(stub.StreamInstanceHistory(history)), INVALID, "execution id", "control character")
    assert stub.GetInstance(pb.GetInstanceRequest(
        instanceId=instance_id, getInputsAndOutputs=True)).orchestrationState.input.value == nul["value"]


@pytest.mark.parametrize("method", [method.name for method in METHODS if method.name != "Hello"])
def test_malformed_messages_are_told_apart_from_bugs(channel, method):
    stream = method in ("GetWorkItems", "StreamInstanceHistory")
    path = f"/TaskHubSidecarService/{method}"
    call = channel.unary_stream(path) if stream else channel.unary_unary(path)
    data = b"\x0a\xff\xff\xff\xff\x0f"
    refused(lambda: list(call(data)) if stream else call(data), INVALID, "message")


def test_a_purge_that_names_nothing_too_much_or_no_time_is_refused(stub):
    refused(lambda: stub.PurgeInstances(pb.PurgeInstancesRequest()), INVALID, "instance id", "filter")
    many = pb.InstanceBatch(instanceIds=[str(number) for number in range(501)])
    refused(lambda: stub.PurgeInstances(pb.PurgeInstancesRequest(instanceBatch=many)), INVALID, "501", "500")
    backwards = pb.PurgeInstanceFilter(timeout=Duration(seconds=-1))
    refused(lambda: stub.PurgeInstances(pb.PurgeInstancesRequest(purgeInstanceFilter=backwards)), INVALID, "timeout")
    never = pb.PurgeInstanceFilter(createdTimeFrom=Timestamp(seconds=253402300800))
    refused(lambda: stub.PurgeInstances(pb.PurgeInstancesRequest(purgeInstanceFilter=never)), INVALID, "createdTimeFrom")


def test_a_batch_to_end_at_once_has_a_limit(stub):
    many = pb.InstanceBatch(instanceIds=[str(number) for number in range(501)])
    request = pb.SkipGracefulOrchestrationTerminationsRequest(instanceBatch=many)
    refused(lambda: stub.SkipGracefulOrchestrationTerminations(request), INVALID, "501", "500")


@pytest.mark.parametrize("key", ["nonsense", ":", "1e3:a", "99999999999999999999999:a", "-1:a", "1:a\0b"])
def test_a_key_of_a_list_that_this_server_did_not_give_is_refused(stub, key):
    request = pb.ListInstanceIdsRequest()
    request.lastInstanceKey.value = key
    refused(lambda: stub.ListInstanceIds(request), INVALID, "last instance key", "without a key")


def test_an_unknown_hub_is_not_found_on_every_kind_of_call(stub):
    metadata = [("taskhub", "nowhere")]
    refused(lambda: stub.Hello(pb.google_dot_protobuf_dot_empty__pb2.Empty(), metadata=metadata), NOT_FOUND, "'nowhere'")
    refused(lambda: next(stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=metadata)), NOT_FOUND, "--task-hub nowhere")
    request = pb.StreamInstanceHistoryRequest(instanceId="x")
    refused(lambda: list(stub.StreamInstanceHistory(request, metadata=metadata)), NOT_FOUND, "'nowhere'")


def test_messages_for_unknown_instances_are_dropped(stub, fresh_id):
    instance_id = fresh_id("nobody")
    stub.RaiseEvent(pb.RaiseEventRequest(instanceId=instance_id, name="e"))
    stub.SuspendInstance(pb.SuspendRequest(instanceId=instance_id))
    stub.ResumeInstance(pb.ResumeRequest(instanceId=instance_id))
    stub.TerminateInstance(pb.TerminateRequest(instanceId=instance_id))
    assert not stub.GetInstance(pb.GetInstanceRequest(instanceId=instance_id)).exists


def history(stub, instance_id):
    chunks = stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance_id))
    return [event.WhichOneof("eventType") for chunk in chunks for event in chunk.events]


def schedule(name):
    return pb.OrchestratorAction(id=0, scheduleTask=pb.ScheduleTaskAction(name=name))


def complete(number):
    done = pb.CompleteOrchestrationAction(orchestrationStatus=pb.ORCHESTRATION_STATUS_COMPLETED)
    return pb.OrchestratorAction(id=number, completeOrchestration=done)


def test_stale_wrong_and_second_answers_are_ok_and_change_nothing(server, fresh_id):
    """On a hub of its own, with a worker made by hand: every answer is given again, and garbled."""
    metadata = [("taskhub", "second")]
    with grpc.insecure_channel(server.address) as channel:
        stub = TaskHubSidecarServiceStub(channel)
        instance_id = fresh_id("twice")
        stub.StartInstance(pb.CreateInstanceRequest(instanceId=instance_id, name="n"), metadata=metadata)
        items = stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=metadata)
        turn = next(items)
        answer = pb.OrchestratorResponse(instanceId=instance_id, completionToken=turn.completionToken, actions=[schedule("a")])
        for token in ("nonsense", "turn:0:0:0", turn.completionToken + "0"):
            wrong = pb.OrchestratorResponse(instanceId=instance_id, completionToken=token, actions=[complete(0)])
            stub.CompleteOrchestratorTask(wrong, metadata=metadata)
        stub.CompleteOrchestratorTask(answer, metadata=metadata)
        stub.CompleteOrchestratorTask(answer, metadata=metadata)
        activity = next(items)
        assert activity.activityRequest.name == "a"
        result = pb.ActivityResponse(instanceId=instance_id, taskId=0, completionToken=activity.completionToken)
        parts = activity.completionToken.split(":")
        for token in ("nonsense", "activity:1:2", ":".join([*parts[:4], "1", parts[5]]), f"activity:1:0:{10**30}:1:1"):
            stub.CompleteActivityTask(pb.ActivityResponse(instanceId=instance_id, taskId=0, completionToken=token),
                                      metadata=metadata)
        stub.CompleteActivityTask(result, metadata=metadata)
        stub.CompleteActivityTask(result, metadata=metadata)
        last = next(items)
        assert [event.WhichOneof("eventType") for event in last.orchestratorRequest.newEvents] == [
            "orchestratorStarted", "taskCompleted"]
        stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
            instanceId=instance_id, completionToken=last.completionToken, actions=[complete(1)]), metadata=metadata)
        items.cancel()
        chunks = stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance_id), metadata=metadata)
        assert [event.WhichOneof("eventType") for chunk in chunks for event in chunk.events] == [
            "orchestratorStarted", "executionStarted", "taskScheduled", "orchestratorStarted", "taskCompleted",
            "executionCompleted"]


def test_an_oversized_item_breaks_neither_its_workers_stream_nor_other_instances(server, fresh_id):
    """A history over 4 MiB cannot reach this client; the instance waits alone, everything else goes on."""
    metadata = [("taskhub", "second")]
    with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        stub = TaskHubSidecarServiceStub(channel)
        big, small = fresh_id("big"), fresh_id("small")
        request = pb.CreateInstanceRequest(instanceId=big, name="n")
        request.input.value = "x" * (5 * 1024 * 1024)
        stub.StartInstance(request, metadata=metadata)
        items = stub.GetWorkItems(pb.GetWorkItemsRequest(), metadata=metadata)
        stub.StartInstance(pb.CreateInstanceRequest(instanceId=small, name="n"), metadata=metadata)
        item = next(items)
        assert item.orchestratorRequest.instanceId == small
        action = schedule("a")
        action.scheduleTask.input.value = "y" * (5 * 1024 * 1024)
        stub.CompleteOrchestratorTask(pb.OrchestratorResponse(
            instanceId=small, completionToken=item.completionToken, actions=[action]), metadata=metadata)
        # The activity's input cannot reach this worker either: it fails, and so can the history that holds it.
        state = stub.GetInstance(pb.GetInstanceRequest(instanceId=small), metadata=metadata)
        assert state.exists
        assert "worker" in server.log.read_text()
        items.cancel()
        stub.TerminateInstance(pb.TerminateRequest(instanceId=big), metadata=metadata)
        ended = stub.WaitForInstanceCompletion(pb.GetInstanceRequest(instanceId=big), metadata=metadata, timeout=20)
        assert ended.orchestrationState.orchestrationStatus == pb.ORCHESTRATION_STATUS_TERMINATED


def test_the_history_of_an_unknown_instance_is_not_found(stub, fresh_id):
    request = pb.StreamInstanceHistoryRequest(instanceId=fresh_id("nobody"))
    refused(lambda: list(stub.StreamInstanceHistory(request)), NOT_FOUND, request.instanceId)
