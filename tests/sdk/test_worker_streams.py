"""The stream of work: how much, to whom, and what becomes of an item that is lost, given back or answered in parts."""

from __future__ import annotations

import time

import pytest
from durabletask.internal import orchestrator_service_pb2 as pb

from wire import complete, connected, kinds, schedule, text

HUB = "second"


@pytest.fixture(scope="module")
def wire(server):
    with connected(server, HUB) as wire:
        yield wire


def test_a_stream_that_gives_no_limit_gets_a_hundred_of_a_kind_and_one_more_for_each_answer(server, fresh_id):
    """0 means that no limit was given, not that nothing may come: JavaScript, Java and Go always send it."""
    many, other = fresh_id("many"), fresh_id("other")
    with connected(server, "default") as wire, wire.worker() as worker:
        wire.start(many)
        worker.answer(worker.turn(many), *(schedule(number) for number in range(150)))
        first = [worker.activity(many) for _ in range(100)]
        wire.start(other)
        assert worker.next().orchestratorRequest.instanceId == other
        worker.result(first[0])
        more = worker.activity(many)
        assert len({item.completionToken for item in (*first, more)}) == 101


def test_an_instance_is_with_one_worker_at_a_time(wire, fresh_id):
    instance_id = wire.start(fresh_id("one"))
    with wire.worker() as holder:
        turn = holder.turn(instance_id)
        wire.raise_event(instance_id)
        with wire.worker() as other:
            # Whoever has most room gets the next item: the other, who would get the event too if it could be handed out.
            noise = wire.start(fresh_id("noise"))
            other.answer(other.turn(noise), complete())
            assert all(item.orchestratorRequest.instanceId != instance_id for item in other.passed)
        holder.answer(turn, complete())


def test_what_a_lost_stream_had_comes_again_and_what_arrived_since_comes_once(wire, fresh_id):
    instance_id = wire.start(fresh_id("lost"))
    with wire.worker() as worker:
        first = worker.turn(instance_id)
    wire.raise_event(instance_id)
    with wire.worker() as worker:
        again = worker.turn(instance_id)
        assert again.completionToken != first.completionToken
        started, restarted = (item.orchestratorRequest.newEvents for item in (first, again))
        assert started[1] == restarted[1]
        assert started[0].timestamp.ToNanoseconds() < restarted[0].timestamp.ToNanoseconds()
        worker.answer(again)
        if len(restarted) == 2:
            last = worker.turn(instance_id)
            worker.answer(last)
        wire.raise_event(instance_id, "last")
        last = worker.turn(instance_id)
        worker.answer(last, complete())
    wire.end(instance_id)
    raised = [event.eventRaised.name for event in wire.history(instance_id) if event.HasField("eventRaised")]
    assert raised == ["e", "last"]


def test_a_late_answer_to_a_lost_turn_changes_nothing(wire, fresh_id):
    instance_id = wire.start(fresh_id("late"))
    with wire.worker() as gone:
        lost = gone.turn(instance_id)
    with wire.worker() as worker:
        turn = worker.turn(instance_id)
        gone.answer(lost, complete(result='"late"'))
        worker.answer(turn, complete(result='"current"'))
    assert wire.end(instance_id).output.value == '"current"'


def test_a_result_that_comes_after_its_stream_was_lost_counts_once(wire, fresh_id):
    """SDKs cancel their stream first and finish what they have afterwards."""
    instance_id = wire.start(fresh_id("late"))
    with wire.worker() as gone:
        gone.answer(gone.turn(instance_id), schedule(1))
        lost = gone.activity(instance_id)
    gone.result(lost, result=text('"late"'))
    with wire.worker() as worker:
        turn = worker.turn(instance_id)
        gone.result(lost, result=text('"again"'))
        worker.answer(turn, complete())
    completed = [event.taskCompleted.result.value for event in wire.history(instance_id) if event.HasField("taskCompleted")]
    assert completed == ['"late"']


def test_an_abandoned_item_comes_again_after_a_second_under_a_new_token(wire, fresh_id):
    instance_id = wire.start(fresh_id("abandoned"))
    with wire.worker() as worker:
        turn, before = worker.turn(instance_id), time.monotonic()
        wire.call("AbandonTaskOrchestratorWorkItem", pb.AbandonOrchestrationTaskRequest(completionToken=turn.completionToken))
        assert wire.state(instance_id).orchestrationStatus == pb.ORCHESTRATION_STATUS_PENDING
        again = worker.turn(instance_id)
        assert time.monotonic() - before >= 0.9
        assert again.completionToken != turn.completionToken
        worker.answer(again, schedule(1))
        activity, before = worker.activity(instance_id), time.monotonic()
        wire.call("AbandonTaskActivityWorkItem", pb.AbandonActivityTaskRequest(completionToken=activity.completionToken))
        again = worker.activity(instance_id)
        assert time.monotonic() - before >= 0.9
        assert again.completionToken != activity.completionToken
        wire.terminate(instance_id)


def test_abandoning_what_is_not_there_is_ok(wire):
    wire.call("AbandonTaskOrchestratorWorkItem", pb.AbandonOrchestrationTaskRequest(completionToken="nonsense"))
    wire.call("AbandonTaskActivityWorkItem", pb.AbandonActivityTaskRequest(completionToken="nonsense"))


def test_an_activity_task_carries_all_that_was_scheduled(wire, fresh_id):
    instance_id = wire.start(fresh_id("full"), version=text("2.0"))
    trace = pb.TraceContext(traceParent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", traceState=text("a=b"))
    with wire.worker() as worker:
        turn = worker.turn(instance_id)
        worker.answer(turn, schedule(7, "full", version=text("1.5"), input=text('"in"'), tags={"kind": "blue"},
                                     parentTraceContext=trace), schedule(8, "bare"))
        full, bare = sorted((worker.activity(instance_id).activityRequest for _ in range(2)), key=lambda one: one.taskId)
        wire.terminate(instance_id)
    execution = pb.OrchestrationInstance(instanceId=instance_id, executionId=turn.orchestratorRequest.executionId)
    assert full == pb.ActivityRequest(name="full", version=text("1.5"), input=text('"in"'), taskId=7, tags={"kind": "blue"},
                                      orchestrationInstance=execution, parentTraceContext=trace)
    assert bare == pb.ActivityRequest(name="bare", taskId=8, orchestrationInstance=execution)


def test_an_activity_failed_if_details_are_there_and_its_result_is_as_it_was_sent(wire, fresh_id):
    instance_id = wire.start(fresh_id("results"))
    details = pb.TaskFailureDetails(
        errorType="T", innerFailure=pb.TaskFailureDetails(errorType="I", errorMessage="inner"), isNonRetriable=True)
    details.properties["code"].number_value = 7
    with wire.worker() as worker:
        worker.answer(worker.turn(instance_id), *(schedule(number) for number in range(1, 5)))
        fields = {1: {"failureDetails": details}, 2: {"failureDetails": pb.TaskFailureDetails()}, 3: {}, 4: {"result": text("")}}
        events = []
        for _ in fields:
            item = worker.activity(instance_id)
            worker.result(item, **fields[item.activityRequest.taskId])
            turn = worker.turn(instance_id)
            events += turn.orchestratorRequest.newEvents[1:]
            worker.answer(turn)
        wire.terminate(instance_id)
    found = {getattr(event, event.WhichOneof("eventType")).taskScheduledId: event for event in events}
    assert found[1].taskFailed.failureDetails == details
    assert found[2].taskFailed.HasField("failureDetails")
    assert found[3].HasField("taskCompleted")
    assert not found[3].taskCompleted.HasField("result")
    assert found[4].taskCompleted.HasField("result")
    assert all(event.eventId == -1 for event in events)


def test_an_answer_in_parts_is_taken_as_one(wire, fresh_id):
    """As Java and .NET send what is larger than a message: the last part says that it is the last."""
    instance_id = wire.start(fresh_id("parts"))
    with wire.worker() as worker:
        turn = worker.turn(instance_id)
        worker.answer(turn, schedule(0), isPartial=True, chunkIndex={"value": 0}, customStatus=text('"s"'))
        worker.answer(turn, schedule(1), isPartial=True, chunkIndex={"value": 1}, customStatus=text('"s"'),
                      numEventsProcessed={"value": 0})
        assert wire.state(instance_id).orchestrationStatus == pb.ORCHESTRATION_STATUS_PENDING
        worker.answer(turn, schedule(2), chunkIndex={"value": 2}, customStatus=text('"s"'), numEventsProcessed={"value": 0})
        assert {worker.activity(instance_id).activityRequest.taskId for _ in range(3)} == {0, 1, 2}
        assert wire.state(instance_id).customStatus.value == '"s"'
        wire.terminate(instance_id)


def test_the_parts_of_an_answer_whose_stream_was_lost_are_dropped(wire, fresh_id):
    instance_id = wire.start(fresh_id("parts"))
    with wire.worker() as gone:
        gone.answer(gone.turn(instance_id), schedule(0), isPartial=True, chunkIndex={"value": 0})
    with wire.worker() as worker:
        worker.answer(worker.turn(instance_id), complete())
    wire.end(instance_id)
    assert "taskScheduled" not in kinds(wire.history(instance_id))


def without_token(item):
    item.completionToken = ""
    return item


def test_answers_without_a_token_are_found_by_instance_and_task(wire, fresh_id):
    """As Java 1.5.0 and Go send them."""
    instance_id = wire.start(fresh_id("bare"))
    with wire.worker() as worker:
        worker.answer(without_token(worker.turn(instance_id)), schedule(3))
        worker.result(without_token(worker.activity(instance_id)), result=text("1"))
        worker.answer(without_token(worker.turn(instance_id)), complete(result="2"))
    assert wire.end(instance_id).output.value == "2"
