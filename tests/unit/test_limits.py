"""What workers answer is bounded: an answer with too much text fails what it answers, with the cause."""

from __future__ import annotations

import pytest

from durabletask_sql.errors import SettingsError
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.settings import Limits, check_max_payload, from_environment
from durabletask_sql.turn import limits
from durabletask_sql.turn.limits import bounded_result, oversize, within_limits

LIMIT = 1000
FITS, LARGE = "é" * 500, "é" * 500 + "x"
ROW = InstanceRow(0, "one", "e", 0, 1, "flow", None, Status.RUNNING, 0, 0, custom_status="half-way")


def text(value):
    return {"value": value}


ACTIONS = {
    "scheduleTask.input": lambda value: {"scheduleTask": pb.ScheduleTaskAction(name="a", input=text(value))},
    "scheduleTask.name": lambda value: {"scheduleTask": pb.ScheduleTaskAction(name=value)},
    "createSubOrchestration.input": lambda value: {
        "createSubOrchestration": pb.CreateSubOrchestrationAction(name="c", input=text(value))},
    "sendEvent.data": lambda value: {"sendEvent": pb.SendEventAction(name="e", data=text(value))},
    "terminateOrchestration.reason": lambda value: {
        "terminateOrchestration": pb.TerminateOrchestrationAction(reason=text(value))},
    "completeOrchestration.result": lambda value: {
        "completeOrchestration": pb.CompleteOrchestrationAction(result=text(value))},
    "completeOrchestration.failureDetails.stackTrace": lambda value: {
        "completeOrchestration": pb.CompleteOrchestrationAction(failureDetails={"stackTrace": text(value)})},
    "completeOrchestration.carryoverEvents.eventRaised.input": lambda value: {
        "completeOrchestration": pb.CompleteOrchestrationAction(
            carryoverEvents=[{"eventRaised": pb.EventRaisedEvent(name="e", input=text(value))}])},
    "sendEntityMessage.entityOperationCalled.input": lambda value: {
        "sendEntityMessage": pb.SendEntityMessageAction(
            entityOperationCalled=pb.EntityOperationCalledEvent(input=text(value)))},
}


def answer(*actions, **fields):
    return pb.OrchestratorResponse(instanceId="one", actions=actions, **fields)


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_over_the_limit_fails_the_orchestration_and_says_which_text(name):
    fine = pb.OrchestratorAction(id=3, scheduleTask=pb.ScheduleTaskAction(name="a"))
    failed = within_limits(ROW, answer(fine, pb.OrchestratorAction(id=7, **ACTIONS[name](LARGE))), LIMIT)
    action, = failed.actions
    done = action.completeOrchestration
    assert done.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED
    assert done.failureDetails.errorType == limits.ERROR_TYPE
    assert done.failureDetails.isNonRetriable
    assert done.failureDetails.errorMessage == (
        f"The orchestrator's action 7 carries too much: {name} has 1001 bytes: at most 1000 are allowed; {limits.ADVICE}.")
    assert action.id == (7 if name.startswith("completeOrchestration") else -1)
    assert failed.customStatus.value == "half-way"


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_at_the_limit_is_taken(name):
    whole = answer(*(pb.OrchestratorAction(id=number, **ACTIONS[name](FITS)) for number in range(5)))
    assert within_limits(ROW, whole, LIMIT) is whole


def test_a_custom_status_over_the_limit_fails_the_orchestration():
    failed = within_limits(ROW, answer(customStatus=text(LARGE)), LIMIT)
    assert "customStatus has 1001 bytes" in failed.actions[0].completeOrchestration.failureDetails.errorMessage
    assert within_limits(ROW, answer(customStatus=text(FITS)), LIMIT).actions == []


def test_an_answer_that_no_transaction_could_hold_fails_the_orchestration(monkeypatch):
    monkeypatch.setattr(limits, "TURN_BYTES", 4000)
    actions = [pb.OrchestratorAction(id=number, **ACTIONS["scheduleTask.input"](FITS)) for number in range(4)]
    failed = within_limits(ROW, answer(*actions), LIMIT)
    assert "one turn has 4" in failed.actions[0].completeOrchestration.failureDetails.errorMessage
    assert len(within_limits(ROW, answer(*actions[:3]), LIMIT).actions) == 3


def test_a_result_over_the_limit_fails_its_activity():
    failed = bounded_result("resize", pb.ActivityResponse(taskId=4, result=text(LARGE), completionToken="t"), LIMIT)
    assert not failed.HasField("result")
    assert (failed.taskId, failed.completionToken) == (4, "t")
    assert failed.failureDetails.isNonRetriable
    assert "activity 'resize' carries too much: result has 1001 bytes" in failed.failureDetails.errorMessage
    fits = pb.ActivityResponse(result=text(FITS))
    assert bounded_result("resize", fits, LIMIT) is fits


def test_a_failure_over_the_limit_keeps_its_type_and_the_beginning_of_its_message():
    given = pb.ActivityResponse(failureDetails={"errorType": "ValueError", "errorMessage": "no such colour",
                                                "stackTrace": text(LARGE)})
    found = bounded_result("paint", given, LIMIT).failureDetails
    assert found.errorType == "ValueError"
    assert found.errorMessage.startswith("no such colour... (shortened: ")
    assert not found.isNonRetriable
    assert not found.HasField("stackTrace")


def test_an_unknown_field_counts_like_a_text():
    unknown = pb.ActivityResponse.FromString(b"\xfa\x07\xe9\x07" + b"x" * 1001)
    assert oversize(unknown, LIMIT) == "127 has 1001 bytes: at most 1000 are allowed"


@pytest.mark.parametrize("size", ["1024", "5000000", 1024, 256 * 1024 * 1024])
def test_a_payload_limit_in_range_is_taken(size):
    assert check_max_payload(size, "--max-payload") == int(size)


@pytest.mark.parametrize("size", ["1023", "0", "-5", "16MB", "", 256 * 1024 * 1024 + 1])
def test_a_payload_limit_out_of_range_is_refused(size):
    with pytest.raises(SettingsError, match="--max-payload"):
        check_max_payload(size, "--max-payload")


def test_the_payload_limit_comes_from_the_environment():
    assert from_environment({"DURABLETASK_SQL_MAX_PAYLOAD": "4096"}).limits == Limits(payload_bytes=4096)
    assert from_environment({}).limits == Limits()
    with pytest.raises(SettingsError, match="DURABLETASK_SQL_MAX_PAYLOAD 'lots'"):
        from_environment({"DURABLETASK_SQL_MAX_PAYLOAD": "lots"})
