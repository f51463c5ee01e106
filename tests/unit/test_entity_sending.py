"""What an orchestration's turn sends to entities, records, and frees when it ends."""

from __future__ import annotations

import itertools
import json

import pytest

from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.ids import is_guid
from durabletask_sql.model.instances import CriticalSection, InstanceRow
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame_all, iter_events
from durabletask_sql.protocol.pb_time import timestamp
from durabletask_sql.turn.apply import Turn, apply
from durabletask_sql.turn.entity.messages import LockRequest, Release, read
from durabletask_sql.turn.intake import Intake, Termination
from entity_rows import ANN, NOW, PARTITIONS, guid, key, row

A, B = "@counter@a", "@counter@b"
LONG = "@counter@" + "k" * 2_000
GRANTED = CriticalSection(ANN.section_id, (A, B), granted=True)
ASKED = CriticalSection(ANN.section_id, (A, B))


def ann(**parts):
    return InstanceRow(*key("ann"), "ann-1", 0, 1, "flow", None, Status.RUNNING, NOW, NOW, history_count=2, **parts)


def message(number, **parts):
    return pb.OrchestratorAction(id=number, sendEntityMessage=pb.SendEntityMessageAction(**parts))


def called(number, target=A, request_id=None):
    return message(number, entityOperationCalled=pb.EntityOperationCalledEvent(
        requestId=guid(number) if request_id is None else request_id, operation="get",
        targetInstanceId=events.text(target)))


def signaled(number, target=A, request_id=None, at=None):
    return message(number, entityOperationSignaled=pb.EntityOperationSignaledEvent(
        requestId=guid(number) if request_id is None else request_id, operation="add",
        targetInstanceId=events.text(target), scheduledTime=at))


def asked(number, *lock_set):
    return message(number, entityLockRequested=pb.EntityLockRequestedEvent(
        criticalSectionId=ANN.section_id, lockSet=lock_set))


def unlocked(number, target):
    return message(number, entityUnlockSent=pb.EntityUnlockSentEvent(
        criticalSectionId=ANN.section_id, targetInstanceId=events.text(target)))


def legacy(number, target, name, **data):
    return pb.OrchestratorAction(id=number, sendEvent=pb.SendEventAction(
        instance=pb.OrchestrationInstance(instanceId=target), name=name, data=events.text(json.dumps(data))))


def done(status=pb.ORCHESTRATION_STATUS_COMPLETED):
    return pb.OrchestratorAction(id=99, completeOrchestration=pb.CompleteOrchestrationAction(orchestrationStatus=status))


def turn(*actions, at=None, new=(), terminated=None):
    numbers = itertools.count(1)
    seen = [events.orchestrator_started(NOW), *new]
    intake = Intake(runs=True, new_events=frame_all(seen), event_count=len(seen), started_at=NOW, terminated=terminated)
    return apply(Turn(at or ann(), (), intake), actions, pb.OrchestratorResponse(), NOW,
                 lambda: f"{next(numbers):032x}", PARTITIONS)


def meant(sent):
    """What a message says to the entity that reads it."""
    return read(row(1, sent.events, sender=sent.execution_id, at=sent.key))


def recorded(checkpoint):
    return list(iter_events(checkpoint.history.events))[1:]


def test_a_call_goes_out_with_the_caller_that_the_server_knows():
    action = called(3)
    action.sendEntityMessage.entityOperationCalled.parentInstanceId.value = "somebody else"
    found = turn(action)
    [sent] = found.messages
    assert (sent.key, sent.execution_id, sent.kind) == (key(A), "ann-1", MessageKind.EVENT)
    assert meant(sent).caller == ("ann", "ann-1")
    [event] = recorded(found)
    assert (event.eventId, event.entityOperationCalled.targetInstanceId.value) == (3, A)


def test_a_signal_is_recorded_as_it_was_sent_and_goes_out_with_a_guid():
    found = turn(signaled(3, request_id="mine"))
    assert recorded(found)[0].entityOperationSignaled.requestId == "mine"
    assert is_guid(meant(found.messages[0]).request_id)


def test_a_delayed_signal_outlives_its_sender():
    found = turn(signaled(3, at=timestamp(NOW + 5)), done())
    assert [(timer.key, timer.execution_id, timer.fire_at) for timer in found.timers] == [(key(A), "ann-1", NOW + 5)]
    assert found.ended


def test_a_signal_for_the_past_goes_out_at_once():
    assert len(turn(signaled(3, at=timestamp(5))).messages) == 1


@pytest.mark.parametrize(("action", "kind"), [
    (called(3, target="counter"), "InvalidEntityId"), (called(3, target="@a"), "InvalidEntityId"),
    (called(3, target=LONG), "InvalidEntityId"),
    (called(3, request_id="x"), "InvalidRequestId")])
def test_a_call_that_cannot_be_sent_fails(action, kind):
    [sent] = turn(action).messages
    assert (sent.key, sent.execution_id) == (key("ann"), "ann-1")
    failed = next(iter(iter_events(sent.events))).entityOperationFailed
    assert failed.failureDetails.errorType == kind


@pytest.mark.parametrize("action", [signaled(3, target="x"), asked(3, "x"), message(3), legacy(3, "@a", "op"),
                                    legacy(3, A, "op@noon"), legacy(3, A, "what"),
                                    signaled(3, target=LONG), asked(3, A, LONG), legacy(3, LONG, "op")])
def test_messages_to_nobody_are_refused(action):
    with pytest.raises(InvalidCompletionError, match="action 3"):
        turn(action)


@pytest.mark.parametrize(("section", "words"), [("a\0b", "NUL character"), ("s" * 2_001, "2001 bytes")])
def test_a_critical_section_that_no_database_could_hold_is_refused(section, words):
    action = asked(3, A)
    action.sendEntityMessage.entityLockRequested.criticalSectionId = section
    with pytest.raises(InvalidCompletionError, match=f"action 3.*critical section.*{words}"):
        turn(action)


def test_a_lock_request_visits_its_entities_in_one_order_whatever_the_sdk():
    found = turn(asked(3, B, A, B))
    [sent] = found.messages
    assert (sent.key, meant(sent)) == (key(A), LockRequest(ANN, (A, B), 0))
    assert found.row.sections == (ASKED,)
    assert list(recorded(found)[0].entityLockRequested.lockSet) == [B, A, B]


def test_an_empty_lock_set_is_granted_at_once():
    found = turn(asked(3))
    [sent] = found.messages
    assert (sent.key, found.row.sections) == (key("ann"), ())
    assert next(iter(iter_events(sent.events))).entityLockGranted.criticalSectionId == ANN.section_id


@pytest.mark.parametrize("grant", [events.entity_lock_granted(NOW, ANN.section_id),
                                   events.event_raised(NOW, ANN.section_id, "{}")])
def test_a_grant_is_remembered(grant):
    assert turn(at=ann(sections=(ASKED,)), new=[grant]).row.sections == (GRANTED,)


def test_the_holders_calls_do_not_wait_behind_the_lock():
    found = turn(called(3, A), called(4, "@counter@other"), signaled(5, A), at=ann(sections=(GRANTED,)))
    assert [sent.kind for sent in found.messages] == [MessageKind.AHEAD, MessageKind.EVENT, MessageKind.EVENT]
    assert turn(called(3, A), at=ann(sections=(ASKED,))).messages[0].kind is MessageKind.EVENT


def test_each_unlock_frees_its_entity():
    found = turn(unlocked(3, A), at=ann(sections=(GRANTED,)))
    [sent] = found.messages
    assert (sent.key, sent.kind, meant(sent)) == (key(A), MessageKind.AHEAD, Release(ANN))
    assert found.row.sections == (GRANTED._replace(entities=(B,)),)
    assert turn(unlocked(3, A), unlocked(4, B), at=ann(sections=(GRANTED,))).row.sections == ()


def test_unlocks_of_what_was_not_granted_yet_cancel_the_request_once():
    found = turn(unlocked(3, A), unlocked(4, B), at=ann(sections=(ASKED,)))
    [sent] = found.messages
    assert (sent.key, meant(sent), found.row.sections) == (key(A), Release(ANN, (A, B), 0), ())
    assert [event.WhichOneof("eventType") for event in recorded(found)] == ["entityUnlockSent"] * 2


def test_an_unlock_of_another_section_changes_nothing():
    assert turn(unlocked(3, A)).messages == ()


ENDS = {
    "completed": [done()], "failed": [done(pb.ORCHESTRATION_STATUS_FAILED)],
    "terminated": [done(pb.ORCHESTRATION_STATUS_TERMINATED)],
    "continued as new": [done(pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW)],
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_an_execution_holds_is_freed_with_its_end(end):
    found = turn(*ENDS[end], at=ann(sections=(GRANTED,)))
    freed = [sent for sent in found.messages if sent.kind is MessageKind.AHEAD]
    assert [(sent.key, meant(sent)) for sent in freed] == [(key(A), Release(ANN)), (key(B), Release(ANN))]
    assert found.row.sections == ()


@pytest.mark.parametrize("end", ENDS)
def test_whatever_an_execution_asks_for_is_cancelled_with_its_end(end):
    found = turn(*ENDS[end], at=ann(sections=(ASKED,)))
    [cancel] = [sent for sent in found.messages if sent.kind is MessageKind.AHEAD]
    assert (cancel.key, meant(cancel)) == (key(A), Release(ANN, (A, B), 0))


def test_a_worker_that_does_not_answer_a_termination_keeps_no_lock():
    found = turn(at=ann(sections=(GRANTED,)), terminated=Termination(None, recurse=False))
    assert (found.row.status, len(found.messages)) == (Status.TERMINATED, 2)


def test_unlocks_beside_the_end_free_each_entity_once():
    found = turn(unlocked(3, A), unlocked(4, B), done(), at=ann(sections=(GRANTED,)))
    assert [sent.key for sent in found.messages] == [key(A), key(B)]


def test_the_older_form_says_the_same():
    both = [{"name": "counter", "key": "b"}, {"name": "counter", "key": "a"}]
    found = turn(legacy(3, B, "op", id=ANN.section_id, op=None, parent="ann", lockset=both, pos=0))
    [sent] = found.messages
    assert (sent.key, meant(sent)) == (key(A), LockRequest(ANN, (A, B), 0, legacy=True))
    assert recorded(found)[0].eventSent.name == "op"
    assert found.row.sections == (ASKED,)
    [freed] = turn(legacy(4, A, "release", id=ANN.section_id, parent="ann"), at=ann(sections=(GRANTED,))).messages
    assert meant(freed) == Release(ANN)


def test_calls_and_signals_in_the_older_form_carry_the_true_caller():
    found = turn(legacy(3, A, "op", id=guid(3), op="get", parent="x", parentExecution="y", input='"i"'),
                 legacy(4, A, "op", id="no guid", op="add", signal=True),
                 legacy(5, A, "op@1970-01-01T00:00:01.0000019Z", id=guid(5), op="add", signal=True))
    call, signal = (meant(sent) for sent in found.messages)
    assert (call.caller, call.legacy, call.request_id) == (("ann", "ann-1"), True, guid(3))
    assert (signal.caller, is_guid(signal.request_id)) == (None, True)
    assert [timer.fire_at for timer in found.timers] == [NOW + 2]


def test_a_call_in_the_older_form_that_cannot_be_sent_fails_in_it():
    [sent] = turn(legacy(3, A, "op", id="x", op="get")).messages
    raised = next(iter(iter_events(sent.events))).eventRaised
    assert raised.name == "x"
    assert json.loads(raised.input.value)["failureDetails"]["ErrorType"] == "InvalidRequestId"


def test_a_child_cannot_take_an_entitys_id():
    found = turn(pb.OrchestratorAction(id=3, createSubOrchestration=pb.CreateSubOrchestrationAction(
        instanceId="@a@b", name="child")))
    assert found.children == ()
    assert next(iter(iter_events(found.messages[0].events))).HasField("subOrchestrationInstanceFailed")


def test_a_termination_of_an_entity_is_dropped():
    action = pb.OrchestratorAction(id=3, terminateOrchestration=pb.TerminateOrchestrationAction(instanceId=A))
    assert turn(action).messages == ()
