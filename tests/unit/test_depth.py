"""Failures that nest too deep to be read as part of a history are cut where they come in."""

from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.wrappers_pb2 import StringValue

from durabletask_sql.dispatch.results import activity_outcome
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import ActivityRow
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.assembly import activity_request, activity_work_item, orchestrator_request, turn_work_item
from durabletask_sql.protocol.framing import frame
from durabletask_sql.turn.apply import Turn, apply
from durabletask_sql.turn.intake import Intake
from durabletask_sql.turn.limits import bounded_result, within_limits
from durabletask_sql.turn.start import start_message

LIMIT = 1_000_000
PARSED = 100  # levels that protobuf's parsers follow


def chain(levels):
    outer = at = pb.TaskFailureDetails(errorType="Outer")
    for level in range(levels):
        at = at.innerFailure
        at.errorType = f"Inner{level}"
    return outer


def listed(levels):
    outer = at = Value()
    for _ in range(levels):
        at = at.list_value.values.add()
    at.number_value = 1
    return outer


def with_value(levels):
    return pb.TaskFailureDetails(errorType="Outer", properties={"near": Value(bool_value=True), "deep": listed(levels)})


def depth(failure):
    return 1 + depth(failure.innerFailure) if failure.HasField("innerFailure") else 0


def told(failure):
    """What a worker reads of an activity's failure in its next turn."""
    row = ActivityRow(1, InstanceKey(0, "one"), "e", 1, "act", None, b"", 1)
    answer = pb.ActivityResponse.FromString(pb.ActivityResponse(failureDetails=failure).SerializeToString())
    message = activity_outcome(row, bounded_result("act", answer, LIMIT), 1)
    item = pb.WorkItem.FromString(turn_work_item("t", orchestrator_request("one", "e", (), message.events, None)))
    return item.orchestratorRequest.newEvents[0].taskFailed.failureDetails


@pytest.mark.parametrize("levels", [0, 1, 30, 60])
def test_a_failure_that_can_be_read_is_told_as_it_is(levels):
    assert told(chain(levels)) == chain(levels)
    assert told(with_value(levels // 3)) == with_value(levels // 3)


@pytest.mark.parametrize("levels", [90, 95, 97])
def test_a_failure_that_is_too_deep_keeps_its_beginning(levels):
    found = told(chain(levels))
    assert depth(found) == 30
    assert found.innerFailure.innerFailure.errorType == "Inner1"
    found = told(with_value(levels // 2))
    assert (found.errorType, found.properties["near"].bool_value, "deep" in found.properties) == ("Outer", True, False)


def test_fields_that_nobody_knows_go_when_they_are_too_deep():
    assert told(unknown(pb.TaskFailureDetails, 1, errorType="Outer")) == chain(0)


def unknown(kind, at, **fields):
    """A message with a field that nobody knows, of groups inside groups: as deep as can be sent at this level."""
    groups = b"\xab\x06" * (PARSED - at) + b"\xac\x06" * (PARSED - at)
    return kind.FromString(kind(**fields).SerializeToString() + groups)


ACTIONS = {
    "a task's trace": lambda: {"scheduleTask": {"name": "a", "parentTraceContext": unknown(pb.TraceContext, 3, traceParent="t")}},
    "a task's input": lambda: {"scheduleTask": {"name": "a", "input": unknown(StringValue, 3, value="i")}},
    "a child's version": lambda: {"createSubOrchestration": {"name": "c", "version": unknown(StringValue, 3, value="v")}},
    "an event's data": lambda: {"sendEvent": {"instance": {"instanceId": "two"}, "data": unknown(StringValue, 3, value="d")}},
    "what is carried over": lambda: {"completeOrchestration": {"orchestrationStatus": 2, "carryoverEvents": [
        {"eventRaised": {"name": "e", "input": unknown(StringValue, 5, value="i")}}]}},
}


@pytest.mark.parametrize("name", ACTIONS)
def test_what_nobody_knows_in_an_action_does_not_reach_a_worker(name):
    made = pb.OrchestratorResponse(instanceId="one", orchestrationTraceContext=unknown(pb.OrchestrationTraceContext, 1),
                                   actions=[pb.OrchestratorAction(id=1, **ACTIONS[name]())])
    row = InstanceRow(0, "one", "e", 0, 1, "flow", None, Status.RUNNING, 0, 0, history_count=2)
    intake = Intake(runs=True, new_events=frame(events.orchestrator_started(5)), event_count=1, started_at=5)
    done = apply(Turn(row, (), intake), made.actions, made, 10, lambda: "next", 4)
    past = [done.history.events] if done.history is not None else []
    starts = [message.events for message in (*done.messages, *(child.start for child in done.children))]
    for new in [b"", *starts]:
        request = orchestrator_request("one", "e", past, new, done.row.trace)
        pb.WorkItem.FromString(turn_work_item("t", request))
    for task in done.activities:
        pb.WorkItem.FromString(activity_work_item("t", activity_request("one", "e", task.event)))


def test_what_nobody_knows_in_a_creation_does_not_reach_a_worker():
    row = InstanceRow(0, "one", "e", 0, 1, "flow", None, Status.PENDING, 0, 0)
    start = start_message(row, None, unknown(pb.TraceContext, 1, traceParent="t"), 1)
    pb.WorkItem.FromString(turn_work_item("t", orchestrator_request("one", "e", (), start.events, None)))


def test_the_failure_of_an_orchestration_is_cut_likewise():
    row = InstanceRow(0, "one", "e", 0, 1, "flow", None, Status.RUNNING, 0, 0)
    done = pb.CompleteOrchestrationAction(orchestrationStatus=3, failureDetails=chain(90))
    answer = within_limits(row, pb.OrchestratorResponse(actions=[{"id": 1, "completeOrchestration": done}]), LIMIT)
    assert depth(answer.actions[0].completeOrchestration.failureDetails) == 30
