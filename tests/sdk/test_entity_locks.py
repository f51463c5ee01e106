"""Locks of entities with the unmodified SDK: exclusion, order, and owners that end in every way, on both databases."""

from __future__ import annotations

import json

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus
from durabletask.entities import DurableEntity, EntityInstanceId
from durabletask.internal import orchestrator_service_pb2 as pb

from checker import check_hub
from sdk.test_entities import eventually

COMPLETED = OrchestrationStatus.COMPLETED


class Account(DurableEntity):
    """Money, read and written apart: without a lock, updates would be lost."""

    def read(self) -> int:
        return self.get_state(int, 100)

    def write(self, amount: int) -> None:
        self.set_state(amount)


def account(key):
    return EntityInstanceId("Account", key)


def transfer(ctx, request):
    source, target, amount = request
    with (yield ctx.lock_entities([account(source), account(target)])):
        one, two = yield task.when_all([ctx.call_entity(account(key), "read") for key in (source, target)])
        yield task.when_all([ctx.call_entity(account(source), "write", one - amount),
                             ctx.call_entity(account(target), "write", two + amount)])


def read(ctx, key):
    return (yield ctx.call_entity(account(key), "read"))


def hold(ctx, keys):
    """Take locks, say so, and keep them until told."""
    with (yield ctx.lock_entities([account(key) for key in keys])):
        ctx.set_custom_status("holds")
        yield ctx.wait_for_external_event("go")
    return "released"


def take(ctx, keys):
    with (yield ctx.lock_entities([account(key) for key in keys])):
        return "had them"


def hold_and_fail(ctx, keys):
    yield ctx.lock_entities([account(key) for key in keys])
    raise ValueError(keys)


def hold_and_continue(ctx, request):
    keys, times = request
    with (yield ctx.lock_entities([account(key) for key in keys])):
        if times:
            ctx.continue_as_new([keys, times - 1])
            return None
    return "done"


def wait_and_give_up(ctx, keys):
    """Ask for locks, and end before they are granted."""
    ctx.lock_entities([account(key) for key in keys])
    ctx.set_custom_status("asks")
    yield ctx.wait_for_external_event("go")
    return "gave up"


@pytest.fixture
def client(hub):
    with hub.client() as client:
        yield client


@pytest.fixture(autouse=True)
def worker(hub):
    with hub.worker(Account, transfer, read, hold, take, hold_and_fail, hold_and_continue, wait_and_give_up):
        yield


def start(client, flow, value, instance_id=None):
    return client.schedule_new_orchestration(flow, input=value, instance_id=instance_id)


def done(client, instance_id):
    return client.wait_for_orchestration_completion(instance_id, timeout=30)


def says(client, instance_id, wanted):
    def look():
        state = client.get_orchestration_state(instance_id)
        return json.loads(state.serialized_custom_status) if state and state.serialized_custom_status else None

    eventually(look, wanted)


def balance(client, key):
    state = done(client, start(client, read, key))
    assert state.runtime_status == COMPLETED
    return json.loads(state.serialized_output)


def is_free(client, *keys):
    """Whether the locks can be taken now."""
    return done(client, start(client, take, keys)).runtime_status == COMPLETED


def test_competing_transfers_lose_no_money(client, server, fresh_id):
    """Locks are asked for in opposite orders, from many orchestrations, over three accounts."""
    keys = [fresh_id("account") for _ in range(3)]
    pairs = [(source, target) for source in keys for target in keys if source != target] * 5
    ids = [start(client, transfer, [source, target, 1]) for source, target in pairs]
    assert {done(client, instance_id).runtime_status for instance_id in ids} == {COMPLETED}
    assert [balance(client, key) for key in keys] == [100, 100, 100]


def test_a_lock_keeps_others_out_and_they_come_in_order(client, fresh_id):
    key = fresh_id("kept")
    holder = start(client, hold, [key])
    says(client, holder, "holds")
    client.signal_entity(account(key), "write", 7)
    waiting = start(client, read, key)
    assert client.get_entity(account(key)) is None
    assert client.get_orchestration_state(waiting).runtime_status != COMPLETED
    client.raise_orchestration_event(holder, "go")
    assert json.loads(done(client, holder).serialized_output) == "released"
    assert json.loads(done(client, waiting).serialized_output) == 7


def test_a_long_queue_behind_a_lock_keeps_its_order_and_nobody_else_waits(client, fresh_id):
    """More than the share of memory waits, so that most of it is not there when the lock becomes free."""
    key, other = fresh_id("long"), fresh_id("other")
    holder = start(client, hold, [key])
    says(client, holder, "holds")
    for number in range(1_200):
        client.signal_entity(account(key), "write", number)
    assert balance(client, other) == 100
    client.raise_orchestration_event(holder, "go")
    assert done(client, holder).runtime_status == COMPLETED
    assert balance(client, key) == 1_199


def test_locked_by_names_the_orchestration(client, hub, fresh_id):
    key = fresh_id("named")
    client.signal_entity(account(key), "write", 1)
    holder = start(client, hold, [key])
    says(client, holder, "holds")
    assert client.get_entity(account(key))._locked_by == holder
    client.raise_orchestration_event(holder, "go")
    done(client, holder)
    eventually(lambda: client.get_entity(account(key))._locked_by, "")


ENDS = {
    "terminated": lambda client, owner: client.terminate_orchestration(owner),
    "completed": lambda client, owner: client.raise_orchestration_event(owner, "go"),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_owner_that_ends_frees_its_locks(client, fresh_id, end):
    keys = [fresh_id("held"), fresh_id("held")]
    owner = start(client, hold, keys)
    says(client, owner, "holds")
    ENDS[end](client, owner)
    done(client, owner)
    assert is_free(client, *keys)


def test_an_owner_that_fails_frees_its_locks(client, fresh_id):
    keys = [fresh_id("failed"), fresh_id("failed")]
    assert done(client, start(client, hold_and_fail, keys)).runtime_status == OrchestrationStatus.FAILED
    assert is_free(client, *keys)


def test_an_owner_that_continues_as_new_frees_its_locks_each_time(client, fresh_id):
    keys = [fresh_id("again"), fresh_id("again")]
    assert json.loads(done(client, start(client, hold_and_continue, [keys, 3])).serialized_output) == "done"
    assert is_free(client, *keys)


@pytest.mark.parametrize("end", ENDS)
def test_a_request_whose_owner_has_ended_is_granted_to_nobody(client, fresh_id, end):
    keys = sorted((fresh_id("asked"), fresh_id("asked")))
    holder = start(client, hold, keys[:1])
    says(client, holder, "holds")
    asker = start(client, wait_and_give_up, keys)
    says(client, asker, "asks")
    ENDS[end](client, asker)
    done(client, asker)
    client.raise_orchestration_event(holder, "go")
    assert done(client, holder).runtime_status == COMPLETED
    assert is_free(client, *keys)


def test_a_request_that_has_come_half_way_frees_what_it_has(client, fresh_id):
    keys = sorted((fresh_id("half"), fresh_id("half")))
    holder = start(client, hold, keys[1:])
    says(client, holder, "holds")
    asker = start(client, wait_and_give_up, keys)  # has the first lock, waits for the second
    says(client, asker, "asks")
    client.terminate_orchestration(asker)
    done(client, asker)
    assert is_free(client, keys[0])
    client.raise_orchestration_event(holder, "go")
    assert is_free(client, *keys)


def test_a_holder_of_locks_is_not_ended_at_once_and_who_waits_for_them_is(client, fresh_id):
    """The holder is named as left alone; the other's request is granted to nobody."""
    key = fresh_id("skip")
    holder = start(client, hold, [key])
    says(client, holder, "holds")
    asking = start(client, wait_and_give_up, [key])
    says(client, asking, "asks")
    request = pb.SkipGracefulOrchestrationTerminationsRequest(
        instanceBatch=pb.InstanceBatch(instanceIds=[holder, asking]), reason={"value": "over"})
    assert list(client._stub.SkipGracefulOrchestrationTerminations(request).unterminatedInstanceIds) == [holder]
    assert done(client, asking).runtime_status == OrchestrationStatus.TERMINATED
    assert client.get_orchestration_state(holder).runtime_status == OrchestrationStatus.RUNNING
    client.raise_orchestration_event(holder, "go")
    assert done(client, holder).runtime_status == COMPLETED
    assert is_free(client, key)
    assert list(client._stub.SkipGracefulOrchestrationTerminations(request).unterminatedInstanceIds) == [holder, asking]


def test_nothing_is_left_locked_and_nothing_in_the_queues(client, server):
    """After all of the above."""
    assert client.clean_entity_storage().orphaned_locks_released == 0
    eventually(lambda: check_hub(server.database), [])
