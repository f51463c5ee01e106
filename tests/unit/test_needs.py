"""The answer that an event holds is found at its head as it is found in the whole event."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame
from durabletask_sql.protocol.needs import HEAD_BYTES, Need, answer_at_head, answered

LARGE = {"value": "x" * 100_000}
NOW = Timestamp(seconds=1_700_000_000, nanos=5)
EVENTS = [
    pb.HistoryEvent(eventId=-1, timestamp=NOW, taskCompleted=pb.TaskCompletedEvent(taskScheduledId=number, result=result))
    for number in (0, 1, 127, 128, 70_000) for result in (None, LARGE)
] + [
    pb.HistoryEvent(timestamp=NOW, taskFailed=pb.TaskFailedEvent(taskScheduledId=3)),
    pb.HistoryEvent(eventId=5, timerFired=pb.TimerFiredEvent(fireAt=NOW, timerId=9)),
    pb.HistoryEvent(eventId=-1, timestamp=NOW, timerFired=pb.TimerFiredEvent(timerId=0)),
    pb.HistoryEvent(subOrchestrationInstanceCompleted=pb.SubOrchestrationInstanceCompletedEvent(taskScheduledId=2, result=LARGE)),
    pb.HistoryEvent(timestamp=NOW, subOrchestrationInstanceFailed=pb.SubOrchestrationInstanceFailedEvent(taskScheduledId=2)),
    pb.HistoryEvent(timestamp=NOW, entityOperationCompleted=pb.EntityOperationCompletedEvent(requestId="one", output=LARGE)),
    pb.HistoryEvent(timestamp=NOW, entityOperationFailed=pb.EntityOperationFailedEvent(requestId="two")),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.WhichOneof('eventType')} {event.ByteSize()}")
def test_an_answer_is_found_at_the_head(event):
    found = answer_at_head(frame(event)[:HEAD_BYTES])
    assert found == answered(event)
    assert isinstance(found, Need)


@pytest.mark.parametrize("head", [b"", b"\x1a", b"\x1a\x00", b"\x1a\xff\xff", b"\xff" * 20, frame(pb.HistoryEvent(
    eventRaised=pb.EventRaisedEvent(name="e"))), frame(EVENTS[11])[:3]])
def test_what_is_no_answer_is_none(head):
    assert answer_at_head(head) is None
