"""Entities of the unmodified SDK, on both databases: signals, calls, state, queries, what they start."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from durabletask import task
from durabletask.client import EntityQuery, OrchestrationStatus
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.worker import ConcurrencyOptions

COMPLETED, FAILED = OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED


class Counter(DurableEntity):
    """Adds up."""

    def add(self, amount: int) -> int:
        self.set_state(self.get_state(int, 0) + amount)
        return self.get_state(int)

    def get(self) -> int:
        return self.get_state(int, 0)

    def add_and_fail(self, amount: int) -> None:
        self.set_state(self.get_state(int, 0) + amount)
        self.signal_entity(EntityInstanceId("Counter", "never"), "add", 1)
        message = f"cannot add {amount}"
        raise ValueError(message)

    def pass_on(self, key: str) -> None:
        self.signal_entity(EntityInstanceId("Counter", key), "add", self.get_state(int, 0))

    def pass_on_later(self, moments: dict[str, str]) -> None:
        for key, moment in moments.items():
            self.signal_entity(EntityInstanceId("Counter", key), "add", 1, signal_time=datetime.fromisoformat(moment))

    def start(self, instance_id: str) -> None:
        self.schedule_new_orchestration("echo", self.get_state(int, 0), instance_id=instance_id)


def list_entity(ctx, text):
    if ctx.operation == "append":
        ctx.set_state([*ctx.get_state(list, []), text])
    return ctx.get_state(list, [])


def echo(ctx, value):
    return value
    yield


def call(ctx, request):
    name, key, operation, value = request
    return (yield ctx.call_entity(EntityInstanceId(name, key), operation, value))


def call_and_catch(ctx, request):
    name, key, operation, value = request
    try:
        yield ctx.call_entity(EntityInstanceId(name, key), operation, value)
    except task.TaskFailedError as error:
        inner = error.details.inner_failure
        return [inner.error_type, inner.message]


@pytest.fixture
def client(hub):
    with hub.client() as client:
        yield client


@pytest.fixture
def worker(hub):
    with hub.worker(Counter, list_entity, echo, call, call_and_catch):
        yield


def run(client, flow, value=None, **options):
    instance_id = client.schedule_new_orchestration(flow, input=value, **options)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert state.runtime_status == COMPLETED, state
    return json.loads(state.serialized_output) if state.serialized_output else None


def eventually(look, wanted):
    until = time.monotonic() + 20
    while (found := look()) != wanted:
        assert time.monotonic() < until, found
        time.sleep(0.02)  # a client has no other way to see that a signal took effect


def value(client, key, name="Counter"):
    found = client.get_entity(EntityInstanceId(name, key))
    return None if found is None else json.loads(found.get_state())


def test_calls_and_signals_change_one_state(client, worker, fresh_id):
    key = fresh_id("sum")
    client.signal_entity(EntityInstanceId("Counter", key), "add", 5)
    assert run(client, call, ["Counter", key, "add", 2]) == 7
    assert value(client, key) == 7


def test_function_entities_work_as_classes_do(client, worker, fresh_id):
    key = fresh_id("list")
    assert run(client, call, ["list_entity", key, "append", "a"]) == ["a"]
    assert run(client, call, ["list_entity", key, "append", "b"]) == ["a", "b"]


def test_signals_of_one_client_take_effect_in_order(client, worker, fresh_id):
    entity = EntityInstanceId("list_entity", fresh_id("order"))
    for number in range(50):
        client.signal_entity(entity, "append", number)
    eventually(lambda: value(client, entity.key, "list_entity"), list(range(50)))


def test_an_orchestrations_signal_comes_before_its_call(client, hub, fresh_id):
    def both(ctx, key):
        entity = EntityInstanceId("list_entity", key)
        for number in range(5):
            ctx.signal_entity(entity, "append", number)
        return (yield ctx.call_entity(entity, "get"))

    with hub.worker(list_entity, both):
        assert run(client, both, fresh_id("first")) == list(range(5))


def test_many_calls_at_once_are_all_answered(client, hub, fresh_id):
    def many(ctx, key):
        entity = EntityInstanceId("Counter", key)
        results = yield task.when_all([ctx.call_entity(entity, "add", 1) for _ in range(100)])
        return sorted(results)

    with hub.worker(Counter, many):
        assert run(client, many, fresh_id("many")) == list(range(1, 101))


def test_a_failed_operation_changes_nothing_and_tells_its_caller(client, worker, fresh_id):
    key = fresh_id("fails")
    run(client, call, ["Counter", key, "add", 1])
    kind, text = run(client, call_and_catch, ["Counter", key, "add_and_fail", 3])
    assert ("ValueError" in kind, text) == (True, "cannot add 3")
    assert (value(client, key), value(client, "never")) == (1, None)


def test_an_entity_that_nobody_knows_fails_its_calls(client, worker, fresh_id):
    _, text = run(client, call_and_catch, ["Nobody", fresh_id("x"), "get", None])
    assert "not registered" in text


def test_a_state_that_is_deleted_is_gone_and_may_come_back(client, worker, fresh_id):
    key = fresh_id("deleted")
    run(client, call, ["Counter", key, "add", 3])
    run(client, call, ["Counter", key, "delete", None])
    assert value(client, key) is None
    assert run(client, call, ["Counter", key, "add", 4]) == 4


def test_an_entity_without_state_leaves_nothing(client, worker, fresh_id):
    key = fresh_id("empty")
    assert run(client, call, ["Counter", key, "get", None]) == 0
    assert client.get_entity(EntityInstanceId("Counter", key)) is None
    query = EntityQuery(instance_id_starts_with=f"@counter@{key}", include_transient=True)
    assert client.get_all_entities(query) == []
    assert client.clean_entity_storage().empty_entities_removed == 0


def test_entities_signal_others_and_themselves(client, worker, fresh_id):
    one, two = fresh_id("one"), fresh_id("two")
    run(client, call, ["Counter", one, "add", 4])
    run(client, call, ["Counter", one, "pass_on", two])
    run(client, call, ["Counter", one, "pass_on", one])
    eventually(lambda: (value(client, one), value(client, two)), (8, 4))


def test_entities_start_orchestrations(client, worker, fresh_id):
    key, instance_id = fresh_id("starter"), fresh_id("started")
    run(client, call, ["Counter", key, "add", 4])
    for expected in (4, 5):  # one that has ended is replaced
        run(client, call, ["Counter", key, "start", instance_id])
        state = client.wait_for_orchestration_completion(instance_id, timeout=30)
        assert json.loads(state.serialized_output) == expected
        run(client, call, ["Counter", key, "add", 1])


def test_a_delayed_signal_makes_no_entity_before_its_time(client, worker, fresh_id):
    near, far = (EntityInstanceId("Counter", fresh_id(name)) for name in ("near", "far"))
    due = datetime.now(UTC) + timedelta(seconds=0.7)
    client.signal_entity(far, "add", 1, due + timedelta(hours=1))
    client.signal_entity(near, "add", 1, due)
    eventually(lambda: value(client, near.key), 1)
    assert client.get_entity(near).last_modified >= due
    assert client.get_entity(far) is None


def test_orchestrations_and_entities_delay_signals_too(client, hub, fresh_id):
    def later(ctx, given):
        through, own, passed_on = given
        for key, moment in own.items():
            ctx.signal_entity(EntityInstanceId("Counter", key), "add", 1, datetime.fromisoformat(moment))
        yield ctx.call_entity(EntityInstanceId("Counter", through), "pass_on_later", passed_on)

    near, far = ([fresh_id(name) for _ in range(2)] for name in ("near", "far"))
    with hub.worker(Counter, later):
        due = datetime.now(UTC) + timedelta(seconds=0.5)
        moments = [{one: due.isoformat(), other: (due + timedelta(hours=1)).isoformat()}
                   for one, other in zip(near, far, strict=True)]
        run(client, later, [fresh_id("through"), *moments])
        eventually(lambda: [value(client, key) for key in near], [1, 1])
        assert all(client.get_entity(EntityInstanceId("Counter", key)).last_modified >= due for key in near)
        assert [value(client, key) for key in far] == [None, None]


def test_a_signal_for_the_past_runs_at_once(client, worker, fresh_id):
    key = fresh_id("past")
    client.signal_entity(EntityInstanceId("Counter", key), "add", 1, datetime(2001, 1, 1, tzinfo=UTC))
    eventually(lambda: value(client, key), 1)


def test_queries_find_entities_by_prefix_time_and_page(client, worker, fresh_id):
    prefix = fresh_id("query")
    began = datetime.now(UTC) - timedelta(seconds=1)
    for number in range(7):
        run(client, call, ["Counter", f"{prefix}-{number}", "add", number])
    found = client.get_all_entities(EntityQuery(f"@counter@{prefix}", page_size=3, last_modified_from=began))
    assert [(one.id.key, one.get_typed_state(int)) for one in found] == [(f"{prefix}-{n}", n) for n in range(7)]
    assert all(one.last_modified >= began and not one.get_locked_by() for one in found)
    assert client.get_all_entities(EntityQuery(f"@counter@{prefix}", last_modified_to=began)) == []
    without = client.get_all_entities(EntityQuery(f"@counter@{prefix}", include_state=False))
    assert [one.get_state() for one in without] == [None] * 7


def test_entities_are_no_orchestrations(client, worker, fresh_id):
    key = fresh_id("none")
    run(client, call, ["Counter", key, "add", 1])
    entity_id = f"@counter@{key}"
    assert client.get_orchestration_state(entity_id) is None
    assert all(not state.instance_id.startswith("@") for state in client.get_all_orchestration_states())
    client.terminate_orchestration(entity_id)
    client.suspend_orchestration(entity_id)
    assert run(client, call, ["Counter", key, "add", 1]) == 2


def test_a_large_state_goes_there_and_back(client, worker, fresh_id):
    key, text = fresh_id("large"), "ä" * 100_000
    assert run(client, call, ["list_entity", key, "append", text]) == [text]
    assert value(client, key, "list_entity") == [text]


def test_one_batch_of_an_entity_is_out_at_a_time_and_others_go_on(client, hub, fresh_id):
    running, most, both = set(), [], threading.Barrier(2, timeout=20)

    class Slow(DurableEntity):
        def work(self, meet):
            key = self.entity_context.entity_id.key
            assert key not in running
            running.add(key)
            most.append(len(running))
            if meet:
                both.wait()
            running.discard(key)
            self.set_state(1)

    one, two = fresh_id("slow"), fresh_id("slow")
    with hub.worker(Slow):
        for number in range(20):
            for key in (one, two):
                client.signal_entity(EntityInstanceId("Slow", key), "work", number == 0)
        eventually(lambda: (value(client, one, "Slow"), value(client, two, "Slow")), (1, 1))
    assert max(most) == 2


def test_a_worker_gets_no_more_batches_than_it_asks_for(client, hub, fresh_id):
    lock, running, most = threading.Lock(), [0], [0]

    class Busy(DurableEntity):
        def work(self):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            threading.Event().wait(0.02)
            with lock:
                running[0] -= 1
            self.set_state(1)

    limits = ConcurrencyOptions(maximum_concurrent_entity_work_items=2, maximum_thread_pool_workers=8)
    keys = [fresh_id("busy") for _ in range(8)]
    with hub.worker(Busy, concurrency=limits):
        for key in keys:
            client.signal_entity(EntityInstanceId("Busy", key), "work")
        eventually(lambda: [value(client, key, "Busy") for key in keys], [1] * 8)
    assert most[0] <= 2


@pytest.mark.parametrize("entity_id", ["@counter@" + "x" * 92, "@counter", "counter", "@@key", "@counter@", "@a@\n"])
def test_bad_entity_ids_are_told_and_change_nothing(client, entity_id):
    entity = EntityInstanceId("counter", "x")
    entity.__class__ = type("Raw", (EntityInstanceId,), {"__str__": lambda _: entity_id})
    for ask in (lambda: client.signal_entity(entity, "add", 1), lambda: client.get_entity(entity)):
        with pytest.raises(grpc.RpcError) as caught:
            ask()
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "length" in caught.value.details() or "@name@key" in caught.value.details() or (
            "control character" in caught.value.details())


def test_an_entity_is_purged_by_its_id_and_begins_anew(client, worker, fresh_id):
    key = fresh_id("purged")
    run(client, call, ["Counter", key, "add", 3])
    request = pb.PurgeInstancesRequest(instanceId=f"@counter@{key}")
    assert [client._stub.PurgeInstances(request).deletedInstanceCount for _ in range(2)] == [1, 0]
    assert value(client, key) is None
    assert run(client, call, ["Counter", key, "add", 4]) == 4
