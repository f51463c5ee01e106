"""What a rewind makes of a history: what failed and what was under way goes, what succeeded stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from durabletask_sql.errors import FailedPreconditionError
from durabletask_sql.model.instances import InstanceRow, ParentLink
from durabletask_sql.model.messages import MessageKind, QueueRow
from durabletask_sql.model.status import Status
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame, frame_all, iter_events
from durabletask_sql.turn.intake import TurnLimits, take
from durabletask_sql.turn.rewind import Cause, rewind, shown

NOW = 50
DETAILS = pb.TaskFailureDetails(errorType="E", errorMessage="m")
ROW = InstanceRow(0, "i", "old", 3, 7, "n", None, Status.FAILED, 1, 40, completed_at=40, history_count=99, last_turn_at=40,
                  custom_status="status", failure=b"x", trace=b"t")


def begun(number):
    return events.orchestrator_started(number)


START = events.execution_started(1, events.Start("n", "i", "old"))
FAILED = events.execution_completed(41, 9, Status.FAILED, None, DETAILS)


def asked(number, name="a", text=None):
    action = pb.ScheduleTaskAction(name=name)
    if text is not None:
        action.input.value = text
    return events.task_scheduled(2, number, action)


def done(number):
    return events.task_completed(3, number, "r")


def failed(number):
    return events.task_failed(3, number, DETAILS)


def timer(number):
    return events.timer_created(2, number, Timestamp(seconds=7, nanos=1))


def fired(number):
    return events.timer_fired(3, number, Timestamp(seconds=7, nanos=1))


def child(number, name="c", **parts):
    return events.child_created(2, number, pb.SubOrchestrationInstanceCreatedEvent(instanceId=name, name="n", **parts))


def child_failed(number):
    return events.child_failed(3, number, DETAILS)


def rewound(*middle, row=ROW, cause=Cause("why", NOW)):
    return rewind(row, frame_all([begun(1), START, *middle, FAILED]), cause, "new")


def left(*middle):
    """What is left between the start and the record of the rewind."""
    history = kept(rewound(*middle)[0])
    assert [one.WhichOneof("eventType") for one in (*history[:2], history[-1])] == [
        "orchestratorStarted", "executionStarted", "executionRewound"]
    return history[2:-1]


def kept(one):
    return [event for part in one.history for event in iter_events(part.events)]


def call(kind, request, **parts):
    return pb.HistoryEvent(eventId=-1, timestamp=Timestamp(seconds=2), **{kind: {"requestId": request, **parts}})


def lock(kind, section, **parts):
    return pb.HistoryEvent(eventId=-1, timestamp=Timestamp(seconds=2), **{kind: {"criticalSectionId": section, **parts}})


def test_what_succeeded_stays_and_what_failed_goes():
    assert left(asked(1), asked(2, "b"), begun(3), done(1), failed(2)) == [asked(1), begun(3), done(1)]


def test_what_was_under_way_goes_so_that_it_is_asked_for_again():
    assert left(asked(1), asked(2, "b"), begun(3), failed(1)) == [begun(3)]


def test_a_retry_under_the_same_id_stays_but_for_its_last_attempt():
    attempts = (asked(1), begun(3), failed(1), timer(2), begun(4), fired(2), asked(1), begun(5), failed(1))
    assert left(*attempts) == [*attempts[:6], begun(5)]


def test_a_retry_under_a_new_id_stays_but_for_its_last_attempt():
    attempts = (asked(1, text="x"), begun(3), failed(1), timer(2), begun(4), fired(2), asked(3, text="x"), begun(5), failed(3))
    assert left(*attempts) == [*attempts[:6], begun(5)]


def test_failures_of_a_fan_out_of_the_same_activity_all_go():
    assert left(asked(1), asked(2), asked(3), begun(3), failed(1), done(2), failed(3)) == [asked(2), begun(3), done(2)]


def test_a_timer_that_had_not_fired_is_armed_again_for_the_new_execution():
    one, _ = rewound(timer(1), timer(2), begun(3), fired(1))
    armed = one.timers[0]
    assert len(one.timers) == 1
    assert (armed.execution_id, armed.fire_at, armed.kind) == ("new", 7_000_001, MessageKind.EVENT)
    event = next(iter_events(armed.events))
    assert (event.timerFired.timerId, event.timerFired.fireAt) == (2, Timestamp(seconds=7, nanos=1))


def test_children_without_a_success_are_open_and_their_failures_go():
    middle = (child(1, "a"), child(2, "b"), child(3, "c"), begun(3), child_failed(1),
              events.child_completed(3, 3, "r"))
    one, children = rewound(*middle)
    assert [(found.task_id, found.body.instanceId) for found in children] == [(1, "a"), (2, "b")]
    assert kept(one)[2:-1] == [*middle[:4], middle[5]]


def test_of_a_retried_child_only_the_last_attempt_is_open():
    same = (child(1), begun(3), child_failed(1), timer(2), begun(4), fired(2), child(1), begun(5), child_failed(1))
    fresh = (child(1), begun(3), child_failed(1), child(2), begun(5), child_failed(2))
    for middle, number in ((same, 1), (fresh, 2)):
        one, children = rewound(*middle)
        assert [found.task_id for found in children] == [number]
        assert kept(one)[2:-1] == list(middle[:-1])


def test_nobody_waits_for_a_child_that_was_only_fired():
    assert rewound(child(1, tags={"FireAndForget": "true"}))[1] == ()


def test_calls_of_entities_that_failed_or_are_under_way_are_made_again():
    middle = (call("entityOperationCalled", "1", operation="a"), call("entityOperationCalled", "2", operation="b"),
              call("entityOperationCalled", "3", operation="c"), call("entityOperationCompleted", "1"),
              call("entityOperationFailed", "2"))
    assert left(*middle) == [middle[0], middle[3]]


def test_an_instance_that_failed_with_a_lock_in_its_hands_cannot_be_rewound():
    requested = lock("entityLockRequested", "s", lockSet=["@a@1", "@b@1"])
    granted, unlock = lock("entityLockGranted", "s"), lock("entityUnlockSent", "s")
    assert left(requested, granted, unlock, unlock) == [requested, granted, unlock, unlock]
    assert left(requested) == []
    with pytest.raises(FailedPreconditionError, match="critical section"):
        rewound(requested, granted, unlock)


def test_the_row_becomes_a_running_one_of_a_new_execution():
    one, _ = rewound(asked(1), begun(3), failed(1))
    assert one.expected_version == 7
    assert one.row == replace(ROW, execution_id="new", row_version=8, status=Status.RUNNING, updated_at=NOW,
                              completed_at=None, failure=None, trace=None, history_count=4, rewinds=1)
    assert kept(one)[1].executionStarted.orchestrationInstance.executionId.value == "new"
    assert kept(one)[-1].executionRewound.reason.value == "why"


def test_a_suspension_that_was_not_resumed_holds_on():
    suspended, resumed = events.execution_suspended(3, None), events.execution_resumed(4, None)
    assert rewound(suspended)[0].row.status is Status.SUSPENDED
    assert rewound(suspended, resumed)[0].row.status is Status.RUNNING


def test_a_child_is_linked_to_the_execution_of_its_parent_that_waits_now():
    row = replace(ROW, parent=ParentLink("p", "before", 4, "n", None))
    start = events.execution_started(1, events.Start("n", "i", "old", parent=pb.ParentInstanceInfo(
        taskScheduledId=4, orchestrationInstance=pb.OrchestrationInstance(instanceId="p"))))
    one, _ = rewind(row, frame_all([begun(1), start, FAILED]), Cause(None, NOW, "after"), "new")
    assert one.row.parent == ParentLink("p", "after", 4, "n", None)
    info = kept(one)[1].executionStarted.parentInstance.orchestrationInstance
    assert (info.instanceId, info.executionId.value) == ("p", "after")
    assert kept(one)[-1].executionRewound.parentExecutionId.value == "after"


def test_the_stored_rows_are_dense_and_a_turn_each():
    one, _ = rewound(asked(1), asked(2, "b"), begun(3), done(1), failed(2), begun(4))
    assert [(part.execution_id, part.first_sequence, part.count) for part in one.history] == [
        ("new", 0, 3), ("new", 3, 2), ("new", 5, 2)]
    assert one.row.history_count == 7


def test_rewinding_again_keeps_the_record_of_the_first_time():
    one, _ = rewound(asked(1), begun(3), failed(1))
    again = replace(one.row, status=Status.FAILED)
    history = b"".join(part.events for part in one.history)
    history += frame_all([begun(60), asked(1), begun(61), failed(1), FAILED])
    two, _ = rewind(again, history, Cause("twice", 70), "newer")
    assert [event.executionRewound.reason.value for event in kept(two) if event.HasField("executionRewound")] == ["why", "twice"]
    assert two.row.rewinds == 2


def test_workers_see_no_rewind():
    one, _ = rewound(asked(1), begun(3), done(1))
    parts = tuple(part.events for part in one.history)
    assert shown(replace(one.row, rewinds=0), parts) == parts
    seen = [event.WhichOneof("eventType") for part in shown(one.row, parts) for event in iter_events(part)]
    assert seen == ["orchestratorStarted", "executionStarted", "taskScheduled", "orchestratorStarted", "taskCompleted"]


def test_the_start_row_of_a_rewound_instance_wakes_it_with_a_clock_and_nothing_else():
    one, _ = rewound(asked(1), begun(3), done(1))
    rows = (QueueRow(5, one.key, "new", MessageKind.START, one.start.events),
            QueueRow(4, one.key, None, MessageKind.EVENT, frame(events.event_raised(60, "e", None))))
    intake = take(one.row, rows, (), 100, TurnLimits())
    assert (intake.runs, intake.consumed, intake.discarded, intake.event_count) == (True, (5, 4), (), 2)
    assert [event.WhichOneof("eventType") for event in iter_events(intake.new_events)] == ["orchestratorStarted", "eventRaised"]
