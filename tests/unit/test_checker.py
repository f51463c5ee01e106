"""The checker finds what was planted."""

from __future__ import annotations

import pytest

from checker import StoredInstance, check_events, check_instance
from durabletask_sql.protocol import events
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.protocol.framing import frame_all

START = events.execution_started(2, events.Start("n", "i", "e"))


def scheduled(number):
    return events.task_scheduled(3, number, pb.ScheduleTaskAction(name="a"))


def legal():
    return [events.orchestrator_started(1), START, scheduled(1), events.orchestrator_started(4),
            events.task_completed(4, 1, "x"), events.execution_completed(5, 2, 1, None, None)]


def test_a_legal_history_passes():
    assert check_events(legal(), ended=True) == []


def test_a_retry_may_schedule_an_id_again():
    history = [*legal()[:5], scheduled(1), events.orchestrator_started(6), events.task_completed(6, 1, "x")]
    assert check_events(history, ended=False) == []


@pytest.mark.parametrize(("plant", "word"), [
    (lambda h: [*h[:5], h[4], h[5]], "second time"),
    (lambda h: [h[0], *h[2:]], "start"),
    (lambda h: [*h[:2], START, *h[2:]], "start"),
    (lambda h: [*h[:2], *h[3:]], "answers nothing"),
    (lambda h: h[:-1], "end"),
    (lambda h: [*h, h[-1]], "end"),
    (lambda h: [*h[:3], events.orchestrator_started(1), *h[4:]], "clock"),
])
def test_planted_bugs_are_found(plant, word):
    assert any(word in problem for problem in check_events(plant(legal()), ended=True))


@pytest.mark.parametrize(("rows", "count", "word"), [
    ([(0, 3), (4, 3)], 7, "dense"),
    ([(0, 3), (3, 3)], 7, "the instance says"),
    ([(0, 2), (2, 4)], 6, "says 2 events and holds 3"),
])
def test_gaps_in_the_stored_rows_are_found(rows, count, word):
    history = legal()
    parts = [frame_all(history[:3]), frame_all(history[3:])]
    stored = StoredInstance("i", 1, count, [(first, number, data) for (first, number), data in zip(rows, parts, strict=True)])
    assert any(word in problem for problem in check_instance(stored))
