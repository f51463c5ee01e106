"""Framed lists in pieces and by kind, answers in parts, and the bound on a work item's size."""

from __future__ import annotations

import pytest

from durabletask_sql.errors import InvalidCompletionError
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.assembly import (
    HEAD_BYTES,
    activity_request,
    activity_work_item,
    assemble_answer,
    orchestrator_request,
    turn_work_item,
)
from durabletask_sql.protocol.framing import frame, frame_all, iter_events, keep_kinds, largest_frame, split_frames

EVENTS = [events.task_completed(number, number, "x" * size) for number, size in enumerate((10, 500, 20, 3000, 0, 40))]


@pytest.mark.parametrize("limit", [1, 100, 700, 4000, 10**6])
@pytest.mark.parametrize("cut", [0, 1, 3, 6])
def test_pieces_hold_the_same_events_in_order(limit, cut):
    parts = (frame_all(EVENTS[:cut]), frame_all(EVENTS[cut:]))
    pieces = list(split_frames(parts, limit))
    assert b"".join(pieces) == frame_all(EVENTS)
    for piece in pieces:
        assert len(piece) <= limit or len(list(iter_events(piece))) == 1


def test_the_largest_event_is_looked_for_in_large_parts_alone():
    large = max(len(event.SerializeToString()) for event in EVENTS)
    assert largest_frame([frame_all(EVENTS)], 100) == large
    assert largest_frame([frame(event) for event in EVENTS], 4000) == 0


def test_events_are_kept_by_kind():
    sent = events.event_sent(1, 1, pb.SendEventAction(name="n"))
    framed = frame_all([EVENTS[0], sent, EVENTS[1]])
    kept = keep_kinds(framed, frozenset((pb.HistoryEvent.TASKCOMPLETED_FIELD_NUMBER,)))
    assert kept == frame_all(EVENTS[:2])


def part(index, *names, partial=True, **fields):
    made = pb.OrchestratorResponse(instanceId="i", completionToken="t", isPartial=partial, **fields)
    made.chunkIndex.value = index
    made.customStatus.value = "status"
    for number, name in enumerate(names):
        made.actions.add(id=number, scheduleTask=pb.ScheduleTaskAction(name=name))
    return made


def test_parts_of_an_answer_are_put_in_order_and_one_that_came_twice_counts_once():
    first = part(0, "a", "b")
    first.orchestrationTraceContext.spanID.value = "span"
    last = part(2, "d", partial=False)
    last.numEventsProcessed.value = 0  # of later parts it is always so
    whole = assemble_answer([first, part(1, "c"), part(1, "c"), last])
    assert [action.scheduleTask.name for action in whole.actions] == ["a", "b", "c", "d"]
    assert not whole.HasField("numEventsProcessed")
    assert (whole.isPartial, whole.customStatus.value) == (False, "status")
    assert whole.orchestrationTraceContext.spanID.value == "span"


@pytest.mark.parametrize("parts", [[part(1, "b", partial=False)], [part(0, "a"), part(2, "c", partial=False)],
                                   [part(0, "a"), part(1, "b")], [part(-1, "a"), part(1, "b", partial=False)],
                                   [part(-1, "a", partial=False)], [pb.OrchestratorResponse()]])
def test_an_answer_with_a_part_missing_is_refused(parts):
    with pytest.raises(InvalidCompletionError, match="missing"):
        assemble_answer(parts)


def test_no_work_item_is_larger_than_its_events_and_the_head():
    """So that no worker's stream is ever broken by a message over its limit."""
    instance, token = "é" * 256, "activity:1:1023:" + "9" * 19 + ":" + "f" * 16 + ":" + "9" * 19
    trace = pb.OrchestrationTraceContext()
    trace.spanID.value = "s" * 64
    trace.spanStartTime.GetCurrentTime()
    past, new = frame_all(EVENTS), frame_all(EVENTS)
    request = orchestrator_request(instance, "e" * 32, (past,), new, trace.SerializeToString())
    assert len(turn_work_item(token, request)) <= len(past) + len(new) + HEAD_BYTES
    streamed = orchestrator_request(instance, "e" * 32, None, new, trace.SerializeToString())
    assert pb.OrchestratorRequest.FromString(streamed).requiresHistoryStreaming
    assert not pb.OrchestratorRequest.FromString(streamed).pastEvents
    task = pb.ScheduleTaskAction(name="n" * 300, input={"value": "x" * 5000}, tags={"a": "b" * 100})
    event = events.task_scheduled(1, 1, task).SerializeToString()
    assert len(activity_work_item(token, activity_request(instance, "e" * 32, event))) <= len(event) + HEAD_BYTES
