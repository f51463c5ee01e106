"""From a worker's answer to an entity's batch to its checkpoint."""

from __future__ import annotations

import itertools
import json

import pytest

from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.ids import is_guid
from durabletask_sql.model.messages import MessageKind
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import iter_events
from durabletask_sql.protocol.pb_time import timestamp
from durabletask_sql.turn.entity.apply import EntityTurn, Surroundings, apply_batch
from durabletask_sql.turn.entity.intake import BatchLimits, Inbox, take
from entity_rows import ANN, NOW, PARTITIONS, E, call, delayed, entity, guid, key, legacy, signal

OOPS = pb.TaskFailureDetails(errorType="E", errorMessage="oops")


def success(text=None):
    result = pb.OperationResult(success=pb.OperationResultSuccess())
    if text is not None:
        result.success.result.value = text
    return result


def failure(details=OOPS):
    return pb.OperationResult(failure=pb.OperationResultFailure(failureDetails=details))


def answered(rows, answer, *, at=None, timers=()):
    batch = take(Inbox(E, at, rows, timers=timers), NOW, BatchLimits(), PARTITIONS)
    numbers = itertools.count(1)
    around = Surroundings(NOW + 1, lambda: f"{next(numbers):032x}", PARTITIONS)
    return apply_batch(EntityTurn(E, at, batch), answer, around)


def answer(*results, state=None, **parts):
    found = pb.EntityBatchResult(results=results, **parts)
    if state is not None:
        found.entityState.value = state
    return found


def event(message):
    return next(iter(iter_events(message.events)))


def test_a_batch_leaves_its_state_and_consumes_its_rows():
    done = answered([signal(1)], answer(success(), success(), state="2"), timers=[delayed(1, NOW)])
    assert (done.expected_version, done.consumed, done.consumed_timers) == (0, (1,), (1,))
    assert (done.row.row_version, done.row.state, done.row.modified_at) == (1, "2", NOW + 1)


def test_a_call_is_answered_to_the_execution_that_made_it():
    done = answered([signal(1), call(2)], answer(success("x"), success("7"), state="2"), at=entity())
    [reply] = done.messages
    assert (reply.key, reply.execution_id, reply.kind) == (key("ann"), "ann-1", MessageKind.EVENT)
    completed = event(reply).entityOperationCompleted
    assert (completed.requestId, completed.output.value) == (guid(2), "7")
    assert done.row.row_version == 4


def test_a_result_that_is_absent_stays_absent():
    [reply] = answered([call(1)], answer(success(), state="2")).messages
    assert not event(reply).entityOperationCompleted.HasField("output")


def test_a_failure_carries_its_details_even_when_there_are_none():
    [one, two] = answered([call(1), call(2)], answer(failure(), failure(None), state="2")).messages
    assert event(one).entityOperationFailed.failureDetails == OOPS
    assert event(two).entityOperationFailed.HasField("failureDetails")


@pytest.mark.parametrize("state", [None, ""])
def test_no_state_means_that_the_entity_is_gone(state):
    done = answered([signal(1)], answer(success(), state=state), at=entity())
    assert (done.expected_version, done.row) == (3, None)


def test_no_state_under_a_lock_keeps_the_lock():
    done = answered([call(1, ahead=True)], answer(success()), at=entity(lock=ANN))
    assert (done.row.state, done.row.lock) == (None, ANN)


def test_what_has_no_result_stays_in_the_queue():
    done = answered([signal(1), call(2), signal(3)], answer(success(), state="2"))
    assert (done.consumed, done.messages) == ((1,), ())


def test_a_failed_batch_fails_its_calls_and_keeps_the_state():
    done = answered([signal(1), call(2)], answer(failureDetails=OOPS), at=entity(state="9"))
    assert (done.consumed, done.row.state) == ((1, 2), "9")
    assert event(done.messages[0]).entityOperationFailed.failureDetails == OOPS


def test_a_batch_that_failed_half_way_answers_both_halves():
    done = answered([call(1), call(2)], answer(success("a"), failureDetails=OOPS), at=entity(state="9"))
    kinds = [event(message).WhichOneof("eventType") for message in done.messages]
    assert (kinds, done.row.state) == (["entityOperationCompleted", "entityOperationFailed"], "9")


def test_calls_in_the_older_form_are_answered_in_it():
    rows = [legacy(1, op="get", id=guid(1), parent="ann", parentExecution="ann-1"),
            legacy(2, op="get", id=guid(2), parent="ann", parentExecution="ann-1")]
    details = pb.TaskFailureDetails(errorType="E", errorMessage='a "b"', innerFailure=OOPS)
    details.properties["n"].number_value = 3
    one, two = (event(message).eventRaised for message in answered(
        rows, answer(success('"x"'), failure(details), state="2")).messages)
    assert (one.name, json.loads(one.input.value)) == (guid(1), {"result": '"x"'})
    said = json.loads(two.input.value)
    assert (json.loads(said["result"]), said["exceptionType"]) == ('a "b"', "E")
    assert said["failureDetails"]["ErrorMessage"] == 'a "b"'
    assert said["failureDetails"]["InnerFailure"]["ErrorType"] == "E"
    assert said["failureDetails"]["Properties"] == {"n": 3}


def send(instance_id="@counter@f", at=None):
    action = pb.OperationAction(sendSignal=pb.SendSignalAction(instanceId=instance_id, name="add"))
    if at is not None:
        action.sendSignal.scheduledTime.CopyFrom(timestamp(at))
    return action


def start(**parts):
    return pb.OperationAction(startNewOrchestration=pb.StartNewOrchestrationAction(**{"name": "flow", **parts}))


def test_signals_of_an_entity_get_request_ids_that_are_guids():
    done = answered([signal(1)], answer(success(), state="2", actions=[send(), send(E.instance_id)]))
    assert [message.key for message in done.messages] == [key("@counter@f"), E]
    assert all(is_guid(event(message).entityOperationSignaled.requestId) for message in done.messages)


def test_a_signal_for_later_waits_and_one_for_the_past_does_not():
    done = answered([signal(1)], answer(success(), actions=[send(at=NOW + 9), send(at=5)]))
    assert [(timer.key, timer.fire_at) for timer in done.timers] == [(key("@counter@f"), NOW + 9)]
    assert len(done.messages) == 1


def test_an_entity_starts_orchestrations_of_their_own():
    done = answered([signal(1)], answer(success(), actions=[
        start(instanceId="job"), start(), start(instanceId="later", scheduledTime=timestamp(NOW + 9))]))
    job, unnamed, later = done.children
    assert (job.row.instance_id, job.row.parent, job.row.version, job.refusal) == ("job", None, None, None)
    assert unnamed.row.instance_id
    assert later.row.scheduled_at == NOW + 9
    started = next(iter(iter_events(job.start.events))).executionStarted
    assert (started.name, dict(started.tags), started.HasField("parentInstance")) == ("flow", {}, False)


@pytest.mark.parametrize("bad", [
    answer(), answer(success(), success(), success()), answer(pb.OperationResult()),
    answer(success(), actions=[pb.OperationAction()]), answer(success(), actions=[send("nobody")]),
    answer(success(), actions=[start(name="")]), answer(success(), actions=[start(instanceId="@a@b")]),
    answer(success(), actions=[start(instanceId="a\0b")]), answer(success(), actions=[start(instanceId="i" * 2_001)]),
    answer(success(), actions=[start(name="n" * 2_001)]), answer(success(), actions=[start(version={"value": "1\0"})]),
    answer(success(), actions=[start(version={"value": "v" * 2_001})]),
    answer(success(), actions=[send("@counter@" + "k" * 2_000)]),
])
def test_what_cannot_be_carried_out_is_refused(bad):
    with pytest.raises(InvalidCompletionError, match=E.instance_id):
        answered([signal(1), call(2)], bad)
