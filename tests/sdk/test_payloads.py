"""Payloads of any size over real gRPC: through every part of a workflow, over a crash, and over the limit."""

from __future__ import annotations

import base64
import json
import random
import re

import grpc
import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.payload import LargePayloadStorageOptions, PayloadStore
from durabletask.worker import TaskHubGrpcWorker

from checker import check_hub
from hubs import Hub
from sdk.raw_worker import RawWorker, complete, schedule, stub
from server import ServerProcess

MIB = 1024 * 1024
LIMIT = 100_000
FAILED, COMPLETED = OrchestrationStatus.FAILED, OrchestrationStatus.COMPLETED


@pytest.fixture
def own_server(database_url, tmp_path):
    process = ServerProcess(database_url, tmp_path / "server.log").start()
    yield process
    process.kill()


def compressible(size):
    return json.dumps([{"number": number, "emoji": "🙂", "nothing": "\0"} for number in range(size // 60)])[:size]


def incompressible(size):
    return base64.b64encode(random.Random(size).randbytes(size)).decode()[:size]


@pytest.mark.parametrize(("make", "size"), [(compressible, 5), (incompressible, 5), (compressible, 15), (incompressible, 15)])
def test_large_payloads_come_back_after_a_crash_of_the_server(own_server, make, size):
    """The turn behind the crash gets the whole history: it was read from the database, its texts from elsewhere."""
    text = make(size * MIB)
    with stub(own_server.address) as calls:
        worker = RawWorker(calls, pb.WORKER_CAPABILITY_LARGE_PAYLOADS)
        calls.StartInstance(pb.CreateInstanceRequest(instanceId="one", name="flow", input={"value": text}))
        first = worker.next()
        assert first.orchestratorRequest.newEvents[1].executionStarted.input.value == text
        worker.answer_turn(first, schedule(1, text))
        own_server.kill()
        own_server.start()
        worker = RawWorker(calls)
        worker.answer_activity(worker.next(), text)
        second = worker.next()
        past, new = second.orchestratorRequest.pastEvents, second.orchestratorRequest.newEvents
        assert past == [*first.orchestratorRequest.newEvents, past[2]]
        assert past[2].taskScheduled.input.value == text
        assert new[1].taskCompleted.result.value == text
        worker.answer_turn(second, complete(2, text))
        state = calls.WaitForInstanceCompletion(pb.GetInstanceRequest(instanceId="one", getInputsAndOutputs=True))
        assert state.orchestrationState.input.value == state.orchestrationState.output.value == text
        chunks = calls.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId="one"))
        history = [event for chunk in chunks for event in chunk.events]
        assert history[:3] == list(past)
        assert history[-1].executionCompleted.result.value == text
        worker.close()
    assert own_server.stop() == 0
    assert check_hub(own_server.database) == []


def test_large_events_reach_an_instance_that_was_read_afresh(own_server):
    texts = [make(3 * MIB) for make in (compressible, incompressible)]
    with stub(own_server.address) as calls:
        worker = RawWorker(calls)
        calls.StartInstance(pb.CreateInstanceRequest(instanceId="one", name="flow"))
        for text in texts:
            calls.RaiseEvent(pb.RaiseEventRequest(instanceId="one", name="e", input={"value": text}))
        seen = []
        while len(seen) < len(texts):
            item = worker.next()
            seen += [event.eventRaised.input.value for event in item.orchestratorRequest.newEvents
                     if event.HasField("eventRaised")]
            worker.answer_turn(item)
        assert seen == texts
        own_server.kill()
        own_server.start()
        calls.RaiseEvent(pb.RaiseEventRequest(instanceId="one", name="e"))
        worker = RawWorker(calls)
        past = worker.next().orchestratorRequest.pastEvents
        assert [event.eventRaised.input.value for event in past if event.HasField("eventRaised")] == texts
        worker.close()


# Over the limit


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A server that takes little. What it does with too much does not depend on the database."""
    folder = tmp_path_factory.mktemp("strict")
    process = ServerProcess(f"sqlite:///{folder / 'hub.db'}", folder / "server.log", "--max-payload", str(LIMIT)).start()
    yield process
    assert process.stop() == 0


def do_make(_, size):
    return "x" * (size - 2)  # and two quotes


def do_fail(_, size):
    raise ValueError("no such colour " + "x" * size)


def do_count(_, text):
    return len(text)


def make(ctx, size):
    try:
        return len((yield ctx.call_activity(do_make, input=size)))
    except task.TaskFailedError as error:
        return [error.details.error_type, error.details.message]


def fail(ctx, size):
    try:
        yield ctx.call_activity(do_fail, input=size)
    except task.TaskFailedError as error:
        return [error.details.error_type, error.details.message[:14]]


def give(_, size):
    return "x" * (size - 2)


def ask(ctx, size):
    return (yield ctx.call_activity(do_count, input="x" * (size - 2)))


def tell(ctx, size):
    ctx.set_custom_status("x" * (size - 2))
    return "told"
    yield


def parent(ctx, size):
    try:
        return len((yield ctx.call_sub_orchestrator(give, input=size)))
    except task.TaskFailedError as error:
        return error.details.message


def run(server, function, size):
    with Hub(server).client() as client, Hub(server).worker(do_make, do_fail, do_count, make, fail, give, ask, tell, parent):
        instance = client.schedule_new_orchestration(function, input=size)
        state = client.wait_for_orchestration_completion(instance, timeout=30)
        return state.runtime_status, json.loads(state.serialized_output or "null"), state.failure_details


def test_a_result_over_the_limit_fails_the_activity_and_not_the_orchestration(strict):
    assert run(strict, make, LIMIT)[:2] == (COMPLETED, LIMIT - 2)
    status, (kind, message), _ = run(strict, make, LIMIT + 1)
    assert (status, kind) == (COMPLETED, "PayloadTooLarge")
    assert re.search(f"activity 'do_make' .* result has {LIMIT + 1} bytes: at most {LIMIT} are allowed", message)


def test_a_failure_over_the_limit_keeps_its_type_and_message(strict):
    assert run(strict, fail, LIMIT)[:2] == (COMPLETED, ["builtins.ValueError", "no such colour"])


@pytest.mark.parametrize(("function", "what"), [
    (give, "completeOrchestration.result"), (ask, "scheduleTask.input"), (tell, "customStatus")])
def test_an_answer_over_the_limit_fails_its_orchestration_with_the_cause(strict, function, what):
    assert run(strict, function, LIMIT)[0] is COMPLETED
    status, output, failure = run(strict, function, LIMIT + 1)
    assert (status, output, failure.error_type) == (FAILED, None, "PayloadTooLarge")
    assert f"{what} has {LIMIT + 1} bytes: at most {LIMIT} are allowed" in failure.message


def test_a_child_with_too_large_an_output_fails_and_its_parent_is_told(strict):
    assert run(strict, parent, LIMIT)[:2] == (COMPLETED, LIMIT - 2)
    status, message, _ = run(strict, parent, LIMIT + 1)
    assert status is COMPLETED
    assert f"result has {LIMIT + 1} bytes" in message


@pytest.mark.parametrize("call", [
    lambda client, text: client.schedule_new_orchestration("nobody", input=text),
    lambda client, text: client.raise_orchestration_event("x", "e", data=text),
    lambda client, text: client.terminate_orchestration("x", output=text),
    lambda client, text: client.schedule_new_orchestration("nobody", tags={str(n): text[:9_000] for n in range(12)}),
])
def test_clients_are_told_at_once(strict, call):
    with Hub(strict).client() as client, pytest.raises(grpc.RpcError) as caught:
        call(client, "x" * (LIMIT - 1))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"at most {LIMIT} are allowed" in caught.value.details()


def test_a_limit_that_cannot_be_is_refused_in_one_sentence(tmp_path):
    server = ServerProcess(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path / "log", "--max-payload", "lots")
    with pytest.raises(AssertionError, match="--max-payload 'lots' is not a number of bytes"):
        server.start()


# The SDK's own mode


class Store(PayloadStore):
    """Payloads in this process, where worker and client are."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    @property
    def options(self):
        return LargePayloadStorageOptions(threshold_bytes=1000)

    def upload(self, data, *, instance_id=None):
        token = f"blob:v1:container:{instance_id}-{len(self.held)}"
        self.held[token] = data
        return token

    async def upload_async(self, data, *, instance_id=None):
        return self.upload(data, instance_id=instance_id)

    def download(self, token):
        return self.held[token]

    async def download_async(self, token):
        return self.download(token)

    def is_known_token(self, value):
        return value in self.held


def echo(ctx, text):
    return (yield ctx.call_activity(do_echo, input=text))


def do_echo(_, text):
    return text


def test_the_sdks_own_large_payloads_pass_through_untouched(server, fresh_id):
    store, text, instance_id = Store(), "x" * 5000, fresh_id("external")
    worker = TaskHubGrpcWorker(host_address=server.address, payload_store=store)
    worker.add_orchestrator(echo)
    worker.add_activity(do_echo)
    worker.start()
    client = TaskHubGrpcClient(host_address=server.address, payload_store=store)
    try:
        client.schedule_new_orchestration(echo, instance_id=instance_id, input=text)
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        assert json.loads(state.serialized_output) == text
    finally:
        client.close()
        worker.stop()
    with Hub(server).client() as plain:
        seen = plain.get_orchestration_state(instance_id)
    assert {seen.serialized_input, seen.serialized_output} <= set(store.held)
