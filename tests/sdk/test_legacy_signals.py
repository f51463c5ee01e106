"""Signals in the older form, which clients send as events to an entity's id: what is one, what is none, and what it does."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from durabletask.entities import EntityInstanceId

from sdk.test_entities import Counter, eventually, value
from wire import connected


@pytest.fixture
def wire(server):
    with connected(server, "default") as wire:
        yield wire


@pytest.fixture
def client(hub):
    with hub.client() as client:
        yield client


@pytest.fixture
def worker(hub):
    with hub.worker(Counter):
        yield


def signal(operation="add", data="1", **fields):
    return json.dumps({"op": operation, "signal": True, "input": data, "id": str(uuid.uuid4()), **fields})


def written(moment, digits=7):
    """A time with as many digits of a second as .NET writes."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{f'{moment.microsecond:06}'.ljust(digits, '0')}Z"


def test_both_forms_of_a_signal_do_the_same_in_the_order_of_their_calls(wire, client, worker, fresh_id):
    key = fresh_id("both")
    for number in range(1, 11):
        if number % 2:
            wire.raise_event(f"@counter@{key}", "op", signal(data=str(number)))
        else:
            client.signal_entity(EntityInstanceId("Counter", key), "add", number)
    eventually(lambda: value(client, key), 55)


def test_a_signal_with_a_time_waits_for_it_and_one_for_the_past_does_not(wire, client, worker, fresh_id):
    later, past, far = fresh_id("later"), fresh_id("past"), fresh_id("far")
    due = datetime.now(UTC) + timedelta(seconds=1)
    wire.raise_event(f"@counter@{far}", "op@9999-12-31T23:59:59.9999999Z", signal())
    wire.raise_event(f"@counter@{later}", f"op@{written(due)}", signal())
    wire.raise_event(f"@counter@{past}", "op@0001-01-01T00:00:00Z", signal())
    eventually(lambda: value(client, past), 1)
    eventually(lambda: value(client, later), 1)
    assert client.get_entity(EntityInstanceId("Counter", later)).last_modified >= due
    assert value(client, far) is None


@pytest.mark.parametrize(("name", "data", "words"), [
    ("op", None, "JSON"),
    ("op", "", "JSON"),
    ("op", "not json", "JSON"),
    ("op", "[" * 10_000, "JSON"),
    ("op", "[1]", "object"),
    ("op", signal(operation="\ud800"), "surrogate"),
    ("op", signal(data="\udfff"), "surrogate"),
    ("op", signal(id="no guid"), "GUID"),
    ("op", signal(id=7), "'id'"),
    ("op", signal(signal=False), "GUID"),
    ("op", signal(lockset=[{"name": "counter", "key": "x"}]), "only orchestrations"),
    ("op", signal(lockset="x"), "lock set"),
    ("op", signal(operation=None), "operation name"),
    ("op", signal(operation=""), "operation name"),
    ("op", signal(operation="a\0b"), "control character"),
    ("op", signal(operation="o" * 301), "300"),
    ("op@yesterday", signal(), "due time"),
    ("op@2031-02-31T00:00:00Z", signal(), "due time"),
    ("op@2031-01-01T00:00:00+02:00", signal(), "due time"),
    ("release", json.dumps({"parent": "me", "id": str(uuid.uuid4())}), "no request"),
    ("continue", signal(), "no request"),
    ("go", signal(), "no request"),
])
def test_what_is_no_signal_is_refused_and_changes_nothing(wire, client, worker, fresh_id, name, data, words):
    key = fresh_id("odd")
    with pytest.raises(grpc.RpcError) as caught:
        wire.raise_event(f"@counter@{key}", name, data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()
    wire.raise_event(f"@counter@{key}", "op", signal(data="3"))
    eventually(lambda: value(client, key), 3)


def test_only_the_state_counts_of_what_else_a_client_does_to_an_entity(wire, client, worker, fresh_id):
    """Terminating, suspending and resuming are for orchestrations; an entity is none."""
    key = fresh_id("none")
    for act in (wire.terminate, wire.suspend, wire.resume):
        act(f"@counter@{key}")
    wire.raise_event(f"@counter@{key}", "op", signal(data="4"))
    eventually(lambda: value(client, key), 4)
