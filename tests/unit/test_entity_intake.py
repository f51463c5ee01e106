"""What the next step of an entity is."""

from __future__ import annotations

import json

import pytest

from durabletask_sql.model.checkpoints import EntityCheckpoint, Quarantine
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.protocol import events
from durabletask_sql.protocol.framing import frame, iter_events
from durabletask_sql.turn.entity.intake import Batch, BatchLimits, Inbox, take
from durabletask_sql.turn.entity.messages import LockRequest, Release, read
from entity_rows import ANN, BOB, NOW, PARTITIONS, E, call, delayed, entity, guid, key, legacy, lock, release, row, signal

F = "@counter@f"


def step(rows, *, at=None, bound=None, timers=(), limits=BatchLimits()):
    return take(Inbox(E, at, rows, bound, timers), NOW, limits, PARTITIONS)


def taken(found):
    assert isinstance(found, Batch), found
    return [one.seq for one, _ in found.operations]


def names(found):
    return [event.WhichOneof("eventType") for event in iter_events(found.events)]


def sent(found):
    """The messages of a checkpoint: whom for, and what they say."""
    return [(message.key.instance_id, message.execution_id, message.kind,
             next(iter(iter_events(message.events))).WhichOneof("eventType")) for message in found.messages]


def test_operations_run_in_the_order_of_the_queue():
    found = step([signal(1), call(2), signal(3)])
    assert taken(found) == [1, 2, 3]
    assert names(found) == ["entityOperationSignaled", "entityOperationCalled", "entityOperationSignaled"]


def test_a_batch_ends_before_a_lock_request():
    assert taken(step([signal(1), lock(2), signal(3)])) == [1]


@pytest.mark.parametrize("limits", [BatchLimits(operations=2), BatchLimits(bytes=2 * len(signal(1).events))])
def test_a_batch_is_bounded(limits):
    assert taken(step([signal(1), signal(2), signal(3)], limits=limits)) == [1, 2]


def test_an_operation_larger_than_the_limit_runs_alone():
    assert taken(step([signal(1), signal(2)], limits=BatchLimits(bytes=1))) == [1]


def test_nothing_above_the_bound_runs():
    assert taken(step([signal(1), signal(7)], bound=5)) == [1]
    assert step([signal(7)], bound=5) is None


def test_due_signals_come_behind_the_queue_in_order_of_time():
    found = step([signal(5)], timers=[delayed(1, NOW), delayed(2, NOW - 1)])
    assert taken(found) == [5, 2, 1]


def test_due_signals_wait_while_messages_are_missing():
    assert step([], bound=4, timers=[delayed(1, NOW)]) is None


def test_the_last_entity_of_a_lock_set_answers_the_owner():
    found = step([lock(1, lock_set=("@counter@a", E.instance_id), position=1), signal(2)])
    assert (found.expected_version, found.consumed, found.row.lock) == (0, (1,), ANN)
    assert sent(found) == [("ann", "ann-1", MessageKind.EVENT, "entityLockGranted")]


def test_the_others_send_the_request_on():
    found = step([lock(1, lock_set=(E.instance_id, F))], at=entity())
    assert (found.row.lock, found.row.state, found.row.row_version) == (ANN, "1", 4)
    assert sent(found) == [(F, "ann-1", MessageKind.EVENT, "entityLockRequested")]
    forwarded = read(row(9, found.messages[0].events, sender="ann-1"))
    assert forwarded == LockRequest(ANN, (E.instance_id, F), 1)


def test_a_locked_entity_runs_only_what_its_holder_sends_ahead():
    rows = [signal(1), call(2, BOB), call(3, ANN, ahead=True), call(4, BOB, ahead=True), call(5, ANN, ahead=True)]
    assert taken(step(rows, at=entity(lock=ANN))) == [3, 5]
    assert step([signal(1), call(2, BOB)], at=entity(lock=ANN)) is None


def test_a_holder_is_an_execution_not_an_instance():
    later = ANN._replace(execution_id="ann-2")
    assert step([call(1, later, ahead=True)], at=entity(lock=ANN)) is None


def test_a_release_waits_for_the_calls_before_it():
    rows = [call(1, ANN, ahead=True), release(2)]
    assert taken(step(rows, at=entity(lock=ANN))) == [1]
    found = step([release(2), call(3, ANN, ahead=True)], at=entity(lock=ANN))
    assert (found.consumed, found.row.lock) == ((2,), None)


@pytest.mark.parametrize("owner", [BOB, ANN._replace(section_id="other"), ANN._replace(execution_id="ann-2")])
def test_a_release_by_another_section_is_dropped(owner):
    found = step([release(1, owner)], at=entity(lock=ANN))
    assert (found.consumed, found.row.lock, found.messages) == ((1,), ANN, ())


def test_a_release_of_what_is_free_is_dropped_and_leaves_nothing():
    found = step([release(1)])
    assert (found.consumed, found.row, found.expected_version) == ((1,), None, 0)


def test_an_entity_without_state_goes_with_its_lock():
    found = step([release(1)], at=entity(state=None, lock=ANN))
    assert (found.expected_version, found.row) == (3, None)


def test_a_cancelled_request_is_never_granted():
    found = step([lock(1), signal(2), release(3, lock_set=(E.instance_id,))])
    assert isinstance(found, EntityCheckpoint)
    assert (found.consumed, found.row, found.messages) == ((1, 3), None, ())


def test_a_cancellation_follows_the_request_along_its_chain():
    found = step([release(2, lock_set=(E.instance_id, F))], at=entity(lock=ANN))
    assert found.row.lock is None
    assert sent(found) == [(F, "ann-1", MessageKind.AHEAD, "entityUnlockSent")]
    following = read(row(9, found.messages[0].events, sender="ann-1"))
    assert following == Release(ANN, (E.instance_id, F), 1)


def test_a_cancellation_goes_on_where_the_lock_was_freed_before():
    found = step([release(2, lock_set=(E.instance_id, F))], at=entity(lock=BOB))
    assert (found.row.lock, len(found.messages)) == (BOB, 1)


def test_a_cancellation_waits_while_its_request_may_be_missing():
    cancel = release(9, lock_set=(E.instance_id,))
    assert step([cancel], bound=5) is None
    assert taken(step([signal(1), cancel], bound=5)) == [1]
    assert step([lock(4), cancel], bound=5).consumed == (4, 9)


def test_the_next_request_is_granted_after_a_release():
    freed = step([lock(1, BOB), release(2)], at=entity(lock=ANN))
    assert (freed.consumed, freed.row.lock) == ((2,), None)
    granted = step([lock(1, BOB)], at=freed.row)
    assert (granted.consumed, granted.row.lock) == ((1,), BOB)


def test_requests_in_the_older_form_reach_workers_in_the_newer_one():
    found = step([legacy(1, op="add", id=guid(1), signal=True, input="2"),
                  legacy(2, op="get", id=guid(2), parent="ann", parentExecution="ann-1")])
    assert names(found) == ["entityOperationSignaled", "entityOperationCalled"]
    signaled, called = iter_events(found.events)
    assert signaled.entityOperationSignaled.input.value == "2"
    assert called.entityOperationCalled.parentExecutionId.value == "ann-1"
    assert called.entityOperationCalled.targetInstanceId.value == E.instance_id


def test_a_lock_request_in_the_older_form_goes_on_and_is_answered_in_it():
    both = [{"name": "counter", "key": "e"}, {"name": "counter", "key": "f"}]
    owner = {"id": ANN.section_id, "parent": "ann", "parentExecution": "ann-1"}
    found = step([legacy(1, op=None, lockset=both, pos=0, **owner)])
    assert found.row.lock == ANN
    forwarded = found.messages[0]
    assert read(row(2, forwarded.events)) == LockRequest(ANN, (E.instance_id, F), 1, legacy=True)
    granted = step([legacy(3, op=None, lockset=both, pos=1, **owner)]).messages[0]
    event = next(iter(iter_events(granted.events))).eventRaised
    assert (granted.key, event.name) == (key("ann"), ANN.section_id)
    assert json.loads(event.input.value) == {"result": "Lock Acquisition Completed"}


@pytest.mark.parametrize("bad", [
    frame(events.execution_terminated(NOW, None, recurse=False)), b"\x1a\x02\xff\xff", b"",
    frame(events.event_raised(NOW, "op", "no json")), frame(events.event_raised(NOW, "op", "[]")),
    frame(events.event_raised(NOW, "other", "{}")), frame(events.event_raised(NOW, "op", '{"lockset": 3}')),
    frame(events.event_raised(NOW, "op", '{"id": 3}')), frame(events.event_raised(NOW, "op", "[" * 10_000)),
    frame(events.event_raised(NOW, "op", '{"id": "\\ud800"}')),
])
def test_what_cannot_be_read_is_set_aside_and_holds_nobody_up(bad):
    assert taken(step([row(1, bad), signal(2)])) == [2]
    found = step([row(1, bad)])
    assert isinstance(found, Quarantine)
    assert (found.seqs, found.timers) == ((1,), ())
    assert found.cause
