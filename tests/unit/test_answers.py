"""What an orchestrator's answer may not hold: names that no database keeps, and events that speak of another execution."""

from __future__ import annotations

from dataclasses import replace

import pytest

from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame, iter_events
from durabletask_sql.turn.apply import Turn, apply, end_pending
from durabletask_sql.turn.intake import Intake, Termination

ROW = InstanceRow(0, "one", "e", 0, 1, "flow", None, Status.RUNNING, 0, 0, history_count=2)
INTAKE = Intake(runs=True, new_events=frame(events.orchestrator_started(5)), event_count=1, started_at=5)


def answer(**action):
    made = pb.OrchestratorResponse(instanceId="one", actions=[pb.OrchestratorAction(id=1, **action)])
    return apply(Turn(ROW, (), INTAKE), made.actions, made, 10, lambda: "next", 4)


def again(**parts):
    return {"completeOrchestration": pb.CompleteOrchestrationAction(orchestrationStatus=2, **parts)}


@pytest.mark.parametrize(("action", "words"), [
    ({"scheduleTask": {"name": ""}}, "activity name"),
    ({"scheduleTask": {"name": "a\0"}}, "activity name"),
    ({"scheduleTask": {"name": "é" * 1001}}, "2002 bytes"),
    ({"scheduleTask": {"name": "a", "version": {"value": "1\0"}}}, "version"),
    ({"createSubOrchestration": {"name": "c", "instanceId": "i" * 2001}}, "sub-orchestration id"),
    ({"createSubOrchestration": {"name": "c", "version": {"value": "\0"}}}, "version"),
    ({"sendEvent": {"instance": {"instanceId": ""}, "name": "e"}}, "target instance id"),
    ({"terminateOrchestration": {"instanceId": ""}}, "instance to terminate"),
    ({"terminateOrchestration": {"instanceId": "a\0b"}}, "instance to terminate"),
    (again(newVersion={"value": "v\0"}), "version"),
    (again(carryoverEvents=[{"executionStarted": {"name": "flow"}}]), "carries over executionStarted"),
    (again(carryoverEvents=[{"executionCompleted": {}}]), "carries over executionCompleted"),
    (again(carryoverEvents=[{"taskCompleted": {"taskScheduledId": 1}}]), "carries over taskCompleted"),
    (again(carryoverEvents=[{}]), "an event of an unknown kind"),
])
def test_what_cannot_be_is_refused_by_name(action, words):
    with pytest.raises(InvalidCompletionError, match="orchestration 'one'") as refused:
        answer(**action)
    assert words in str(refused.value)


@pytest.mark.parametrize(("stamp", "kept"), [
    (None, (0, 10_000)), ({"seconds": 0}, (0, 10_000)), ({"seconds": 7}, (7, 0)), ({"seconds": 7, "nanos": -1}, (7, 0)),
    ({"seconds": 2**63 - 1}, (253_402_300_799, 999_999_999))])
def test_a_carried_event_without_a_time_gets_that_of_the_commit_and_none_keeps_an_impossible_one(stamp, kept):
    start = answer(**again(carryoverEvents=[{"timestamp": stamp, "eventRaised": {"name": "e"}}])).messages[-1]
    _, carried = iter_events(start.events)
    assert (carried.timestamp.seconds, carried.timestamp.nanos) == kept
    assert carried.eventRaised.name == "e"


def test_an_execution_that_is_ended_before_its_first_turn_keeps_its_custom_status():
    """As it does when a client's termination finds it so: whoever ends it, the last word was its worker's."""
    row = replace(ROW, history_count=0, custom_status="half-way")
    intake = Intake(runs=True, started_at=5, terminated=Termination("enough", recurse=False), ends_pending=True)
    ended = end_pending(Turn(row, (), intake), 10, 4)
    assert (ended.row.status, ended.row.custom_status, ended.output) == (Status.TERMINATED, "half-way", "enough")
