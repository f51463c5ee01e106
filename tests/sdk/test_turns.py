"""What a turn sees, and what becomes of its answer, field by field."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from wire import (
    COMPLETED,
    CONTINUED_AS_NEW,
    FAILED,
    TERMINATED,
    child,
    complete,
    connected,
    kinds,
    schedule,
    send,
    text,
    timer,
)

TRACE = pb.TraceContext(traceParent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", traceState=text("a=b"))


@pytest.fixture(scope="module")
def wire(server):
    with connected(server, "second") as wire:
        yield wire


@pytest.fixture
def worker(wire):
    with wire.worker() as worker:
        yield worker


def stamp(seconds_from_now, nanos=0):
    return Timestamp(seconds=int(time.time()) + seconds_from_now, nanos=nanos)


def new_events(item):
    return item.orchestratorRequest.newEvents


def until_raised(worker, instance_id, name):
    """Answer an instance's turns until one has this event; return it."""
    while True:
        turn = worker.turn(instance_id)
        if any(event.eventRaised.name == name for event in new_events(turn)):
            return turn
        worker.answer(turn)


# What a turn sees


def test_the_first_turn_begins_with_the_two_starts_and_names_its_execution(wire, worker, fresh_id):
    instance_id = wire.start(fresh_id("first"), version=text(""), input=text('"in"'), tags={"a": "b"}, parentTraceContext=TRACE)
    turn = worker.turn(instance_id)
    request = turn.orchestratorRequest
    assert not request.pastEvents
    assert kinds(request.newEvents) == ["orchestratorStarted", "executionStarted"]
    assert all(event.eventId == -1 and event.timestamp.seconds for event in request.newEvents)
    started = request.newEvents[1].executionStarted
    assert re.fullmatch("[0-9a-f]{32}", request.executionId.value)
    assert started.orchestrationInstance == pb.OrchestrationInstance(instanceId=instance_id, executionId=request.executionId)
    assert (started.name, started.input.value, dict(started.tags)) == ("n", '"in"', {"a": "b"})
    assert started.HasField("version")
    assert started.parentTraceContext == TRACE
    assert not started.HasField("parentInstance")
    assert request.entityParameters.HasField("entityMessageReorderWindow")
    assert request.entityParameters.entityMessageReorderWindow.ToNanoseconds() == 0
    worker.answer(turn, complete())


def test_fields_that_were_not_given_are_absent(wire, worker, fresh_id):
    turn = worker.turn(wire.start(fresh_id("bare")))
    started = new_events(turn)[1].executionStarted
    assert not any(started.HasField(name) for name in ("version", "input", "parentTraceContext", "scheduledStartTimestamp"))
    worker.answer(turn, complete())


def test_a_start_time_of_1970_means_now(wire, worker, fresh_id):
    """JavaScript sends it whenever its caller gave none."""
    before = time.time_ns()
    turn = worker.turn(wire.start(fresh_id("epoch"), scheduledStartTimestamp=Timestamp()))
    started, execution = new_events(turn)
    assert before - 10**9 < started.timestamp.ToNanoseconds() < before + 60 * 10**9
    assert not execution.executionStarted.HasField("scheduledStartTimestamp")
    worker.answer(turn, complete())


def test_what_is_raised_early_comes_behind_the_starts_in_order_and_a_suspension_last(wire, fresh_id):
    instance_id = fresh_id("early")
    wire.start(instance_id, scheduledStartTimestamp=stamp(2))
    wire.raise_event(instance_id, "one")
    wire.raise_event(instance_id, "two")
    wire.suspend(instance_id)
    wire.raise_event(instance_id, "three")
    with wire.worker() as worker:  # only now, since on a slow machine the start may be due before the last call
        turn = worker.turn(instance_id)
        assert kinds(new_events(turn)) == ["orchestratorStarted", "executionStarted", "eventRaised", "eventRaised",
                                           "executionSuspended"]
        assert [event.eventRaised.name for event in new_events(turn)[2:4]] == ["one", "two"]
        worker.answer(turn, complete())


def test_a_termination_comes_alone_behind_what_was_before_it(wire, worker, fresh_id):
    instance_id = wire.start(fresh_id("terminated"))
    worker.answer(worker.turn(instance_id))
    wire.raise_event(instance_id, "held")
    turn = worker.turn(instance_id)
    wire.raise_event(instance_id, "before")
    wire.terminate(instance_id, '"first"')
    wire.terminate(instance_id, '"second"')
    worker.answer(turn)
    turn = worker.turn(instance_id)
    assert kinds(new_events(turn)) == ["orchestratorStarted", "eventRaised"]
    worker.answer(turn)
    turn = worker.turn(instance_id)
    assert kinds(new_events(turn)) == ["orchestratorStarted", "executionTerminated"]
    assert new_events(turn)[1].executionTerminated.input.value == '"first"'
    worker.answer(turn)
    state = wire.end(instance_id)
    assert (state.orchestrationStatus, state.output.value) == (TERMINATED, '"first"')


def test_the_clock_is_later_than_every_fire_at_and_every_earlier_turn(wire, worker, fresh_id):
    """Java re-arms a timer whose time is not strictly before the clock."""
    instance_id = wire.start(fresh_id("clock"))
    clocks = []
    fire_at = stamp(1, nanos=123_456_789)
    for actions in ([timer(1, fire_at)], [timer(2, Timestamp(seconds=1))], [complete()]):
        turn = worker.turn(instance_id)
        clocks.append(new_events(turn)[0].timestamp.ToNanoseconds())
        if len(clocks) == 2:
            assert clocks[-1] > fire_at.ToNanoseconds()
            assert new_events(turn)[1].timerFired == pb.TimerFiredEvent(timerId=1, fireAt=fire_at)
        worker.answer(turn, *actions)
    assert all(before < after for before, after in pairwise(clocks))
    created = next(event for event in wire.history(instance_id) if event.HasField("timerCreated"))
    assert created.timerCreated.fireAt == fire_at


def test_past_events_are_the_history_and_a_lost_answers_events_are_not_in_it(wire, worker, fresh_id):
    instance_id = wire.start(fresh_id("past"))
    worker.answer(worker.turn(instance_id), schedule(1))
    worker.result(worker.activity(instance_id))
    turn = worker.turn(instance_id)
    assert kinds(turn.orchestratorRequest.pastEvents) == ["orchestratorStarted", "executionStarted", "taskScheduled"]
    assert list(turn.orchestratorRequest.pastEvents) == wire.history(instance_id)
    worker.answer(turn, complete())


# What becomes of an answer


def test_actions_count_in_order_of_their_ids_and_beside_a_completion(wire, worker, fresh_id):
    """SDKs leave events, unlocks and signals beside the completion, in any order."""
    instance_id, target = wire.start(fresh_id("beside")), wire.start(fresh_id("target"))
    worker.answer(worker.turn(target))
    worker.answer(worker.turn(instance_id), complete(3, result="1"), send(2, target, "after"), send(1, target, "before"),
                  schedule(4))
    wire.end(instance_id)
    history = wire.history(instance_id)
    assert kinds(history)[2:] == ["eventSent", "eventSent", "taskScheduled", "executionCompleted"]
    assert [event.eventId for event in history[2:]] == [1, 2, 4, 3]
    first = until_raised(worker, target, "before")
    names = [event.eventRaised.name for event in new_events(first)[1:]]
    worker.answer(first)
    if "after" not in names:
        names += [event.eventRaised.name for event in new_events(until_raised(worker, target, "after"))[1:]]
    assert names == ["before", "after"]


@pytest.mark.parametrize(("statuses", "counts"), [
    ((COMPLETED, TERMINATED), COMPLETED), ((TERMINATED, COMPLETED), TERMINATED), ((CONTINUED_AS_NEW, TERMINATED), TERMINATED)])
def test_of_two_completions_the_first_that_ends_counts(wire, worker, fresh_id, statuses, counts):
    """Go gives two when a termination meets an event, in any order of the list; ids tell which came first."""
    instance_id = wire.start(fresh_id("two"))
    actions = [complete(number, status, str(status)) for number, status in enumerate(statuses)]
    worker.answer(worker.turn(instance_id), *reversed(actions))
    state = wire.end(instance_id)
    assert (state.orchestrationStatus, state.output.value) == (counts, str(counts))
    assert kinds(wire.history(instance_id)).count("executionCompleted") == 1


def test_an_empty_custom_status_is_none_and_an_unset_one_clears_it(wire, worker, fresh_id):
    instance_id = wire.start(fresh_id("status"))
    seen = []
    for status in (text('""'), text(""), text('"set"'), None):
        worker.answer(worker.turn(instance_id), customStatus=status)
        state = wire.state(instance_id)
        seen.append(state.customStatus.value if state.HasField("customStatus") else None)
        wire.raise_event(instance_id)
    assert seen == ['""', None, '"set"', None]
    worker.answer(worker.turn(instance_id), complete())


@pytest.mark.parametrize(("asked", "kept"), [
    (Timestamp(seconds=8_640_000_000_000), Timestamp(seconds=253_402_300_799, nanos=999_999_999)),
    (Timestamp(seconds=-8_640_000_000_000), Timestamp(seconds=-62_135_596_800))], ids=["far", "ancient"])
def test_a_timer_beyond_what_the_protocol_can_say_is_brought_into_its_range(wire, worker, fresh_id, asked, kept):
    """The dates of JavaScript and Java go further than year 9999: nobody waits for the difference."""
    instance_id = wire.start(fresh_id("timer"))
    worker.answer(worker.turn(instance_id), timer(1, asked))
    assert wire.history(instance_id)[2].timerCreated.fireAt == kept
    wire.raise_event(instance_id)
    worker.answer(until_raised(worker, instance_id, "e"), complete())
    wire.end(instance_id)


def test_the_trace_of_an_execution_is_sent_back_to_it_until_it_continues_as_new(wire, worker, fresh_id):
    instance_id = wire.start(fresh_id("trace"), parentTraceContext=TRACE)
    trace = pb.OrchestrationTraceContext(spanID=text("b7ad6b7169203331"), spanStartTime=stamp(0, nanos=1))
    first = worker.turn(instance_id)
    assert not first.orchestratorRequest.HasField("orchestrationTraceContext")
    worker.answer(first, orchestrationTraceContext=trace)
    wire.raise_event(instance_id)
    second = worker.turn(instance_id)
    assert second.orchestratorRequest.orchestrationTraceContext == trace
    worker.answer(second, complete(status=CONTINUED_AS_NEW), orchestrationTraceContext=trace)
    third = worker.turn(instance_id)
    assert not third.orchestratorRequest.HasField("orchestrationTraceContext")
    assert new_events(third)[1].executionStarted.parentTraceContext == TRACE
    worker.answer(third, complete())


def test_a_failure_is_passed_on_unchanged_and_only_a_failed_instance_has_one(wire, worker, fresh_id):
    details = pb.TaskFailureDetails(errorType="T", errorMessage="m", stackTrace=text("here"), isNonRetriable=True,
                                    innerFailure=pb.TaskFailureDetails(errorType="I", errorMessage="inner"))
    details.properties["code"].string_value = "x"
    parent, failing = wire.start(fresh_id("parent")), fresh_id("child")
    worker.answer(worker.turn(parent), child(1, failing))
    worker.answer(worker.turn(failing), complete(status=FAILED, failureDetails=details))
    turn = worker.turn(parent)
    assert new_events(turn)[1].subOrchestrationInstanceFailed == pb.SubOrchestrationInstanceFailedEvent(
        taskScheduledId=1, failureDetails=details)
    worker.answer(turn, complete())
    assert wire.state(failing).failureDetails == details
    assert not wire.end(parent).HasField("failureDetails")


# Continue as new


def test_the_next_execution_starts_afresh_with_what_was_carried_over(wire, worker, fresh_id):
    """Some SDKs give carried events the time 0; they get the time of the commit."""
    instance_id = wire.start(fresh_id("next"), version=text("1.0"), tags={"a": "b"})
    first = worker.turn(instance_id)
    carried = [pb.HistoryEvent(eventId=-1, timestamp=Timestamp(), eventRaised=pb.EventRaisedEvent(name=name))
               for name in ("one", "two")]
    worker.answer(first, send(1, instance_id, "to myself"),
                  complete(2, CONTINUED_AS_NEW, '"again"', carryoverEvents=carried, newVersion=text("2.0")))
    second = worker.turn(instance_id)
    assert not second.orchestratorRequest.pastEvents
    events = new_events(second)
    assert kinds(events) == ["orchestratorStarted", "executionStarted", "eventRaised", "eventRaised", "eventRaised"]
    assert [event.eventRaised.name for event in events[2:]] == ["one", "two", "to myself"]
    assert all(event.timestamp.seconds > 1_000_000_000 for event in events)
    started = events[1].executionStarted
    assert (started.input.value, started.version.value, dict(started.tags)) == ('"again"', "2.0", {"a": "b"})
    assert second.orchestratorRequest.executionId.value != first.orchestratorRequest.executionId.value
    assert wire.state(instance_id).orchestrationStatus == pb.ORCHESTRATION_STATUS_RUNNING
    worker.answer(second, complete())


def test_results_for_the_old_execution_are_dropped(wire, worker, fresh_id):
    """Ids begin again, so that a result of the old activity or timer would complete an unrelated task."""
    instance_id = wire.start(fresh_id("old"))
    worker.answer(worker.turn(instance_id), schedule(1), timer(2, stamp(1)))
    activity = worker.activity(instance_id)
    wire.raise_event(instance_id)
    worker.answer(worker.turn(instance_id), complete(3, CONTINUED_AS_NEW))
    worker.answer(worker.turn(instance_id), timer(1, stamp(2)), timer(2, stamp(2)))
    worker.result(activity, result=text('"old"'))
    events = []
    while len(events) < 2:
        turn = worker.turn(instance_id)
        events += new_events(turn)[1:]
        worker.answer(turn, *([complete()] if len(events) == 2 else []))
    assert kinds(events) == ["timerFired", "timerFired"]
    assert all(event.timerFired.fireAt.seconds == events[0].timerFired.fireAt.seconds for event in events)


def test_a_termination_is_not_lost_to_a_continue_as_new(wire, worker, fresh_id):
    instance_id = wire.start(fresh_id("both"))
    worker.answer(worker.turn(instance_id))
    wire.terminate(instance_id, '"stop"')
    worker.answer(worker.turn(instance_id), complete(status=CONTINUED_AS_NEW))
    state = wire.end(instance_id)
    assert (state.orchestrationStatus, state.output.value) == (TERMINATED, '"stop"')


# Sub-orchestrations


def test_a_child_knows_its_parent_and_inherits_its_tags_but_not_its_version(wire, worker, fresh_id):
    parent, child_id = wire.start(fresh_id("parent"), name="p", version=text("1.0"), tags={"a": "1", "b": "1"}), fresh_id("child")
    turn = worker.turn(parent)
    worker.answer(turn, child(5, child_id, "c", input=text('"in"'), tags={"b": "2"}, parentTraceContext=TRACE))
    started = new_events(worker.turn(child_id))[1].executionStarted
    instance = pb.OrchestrationInstance(instanceId=parent, executionId=turn.orchestratorRequest.executionId)
    assert started.parentInstance == pb.ParentInstanceInfo(taskScheduledId=5, name=text("p"), version=text("1.0"),
                                                           orchestrationInstance=instance)
    assert (started.name, started.input.value, dict(started.tags)) == ("c", '"in"', {"a": "1", "b": "2"})
    assert not started.HasField("version")
    assert started.parentTraceContext == TRACE
    wire.terminate(parent, recursive=True)


def test_a_live_instance_is_not_replaced_by_a_child_and_an_ended_one_is(wire, worker, fresh_id):
    live, ended, parent = wire.start(fresh_id("live")), wire.start(fresh_id("ended")), fresh_id("parent")
    live_turn = worker.turn(live)
    worker.answer(worker.turn(ended), complete())
    before = wire.end(ended).executionId.value
    wire.start(parent)
    worker.answer(worker.turn(parent), child(1, live), child(2, ended))
    refused = new_events(worker.turn(parent))[1].subOrchestrationInstanceFailed
    assert refused.taskScheduledId == 1
    assert "already exists" in refused.failureDetails.errorMessage
    again = worker.turn(ended)
    assert again.orchestratorRequest.executionId.value != before
    assert wire.state(live).executionId.value == live_turn.orchestratorRequest.executionId.value
    for instance_id in (parent, live, ended):
        wire.terminate(instance_id)
