"""What the JavaScript SDK shows beyond what every language does, among it what its own suite pins."""

from __future__ import annotations

import itertools
import re
from datetime import datetime

import pytest

from polyglot.languages import completed, terminated


@pytest.fixture
def seen(scenarios):
    return scenarios("javascript")


@pytest.mark.parametrize(("where", "kind"), [
    ("activity", "TaskFailedError"), ("orchestration", "OutOfStockError"), ("child", "TaskFailedError"),
    ("unknown_activity", "TaskFailedError"), ("unknown_orchestration", "OrchestratorNotRegisteredError")])
def test_a_failure_keeps_its_type_and_stack_trace(seen, where, kind):
    failure = seen["failures"][where]["failure"]
    assert failure["type"] == kind
    assert failure["traced"]


def test_an_empty_name_is_told(seen):
    assert "name is empty" in seen["bad_input"]["name"]


def test_a_child_knows_its_parent_and_has_an_id_made_from_its_execution(seen):
    assert seen["lineage"]["top"] == completed({"id": "nobodys-child", "parent": None})
    child = seen["lineage"]["child"]["output"]
    assert re.fullmatch("[0-9a-f]{32}:[0-9a-f]{4}", child["id"])
    assert child["parent"] == {"name": "lineage_parent", "instanceId": "the-parent", "taskScheduledId": 1}


def test_an_orchestration_sends_an_event_to_another(seen):
    assert seen["event_between_orchestrations"] == completed(["from another orchestration"])


def test_a_timer_for_the_last_date_of_javascript_is_waited_for(seen):
    assert seen["farthest_timer"] == completed(output=True)


def test_continue_as_new_keeps_the_order_of_events(seen):
    assert seen["continue_as_new"]["events"] == completed(list(range(10)))


def test_terminate_takes_the_children_along_when_recursive(seen):
    assert seen["terminate_recursively"] == [terminated("all of you")] * 3


def test_terminate_leaves_the_children_alone_when_not_recursive(seen):
    assert seen["terminate_alone"] == {"ended": terminated(None), "before": "RUNNING", "child": completed([1])}


def test_a_version_reaches_the_orchestrator_and_is_not_inherited(seen):
    assert seen["versions"] == {"given": completed("1.2.3"), "none": completed(""), "family": completed(["1.0", "2.0", ""])}


def test_tags_are_kept_on_instances_and_activities_and_inherited_by_children(seen):
    own = {"team": "blue", "ünï": "çödé"}
    assert seen["tags"] == {"own": own, "child": own | {"kind": "child"}, "activity": {"kind": "activity"}}


def test_guids_differ_and_survive_replay(seen):
    first, second = seen["guids"]["output"]
    assert first != second


def test_the_history_of_an_unknown_instance_is_empty_and_purging_it_counts_nothing(seen):
    assert (seen["unknown_instance"]["history"], seen["unknown_instance"]["purged"]) == ([], 0)


def test_a_history_reads_back_in_exactly_twelve_events(seen):
    events = seen["history"]
    assert [event["type"] for event in events] == [
        "OrchestratorStarted", "ExecutionStarted", "TaskScheduled", "OrchestratorStarted", "TaskCompleted", "TimerCreated",
        "OrchestratorStarted", "TimerFired", "SubOrchestrationInstanceCreated", "OrchestratorStarted",
        "SubOrchestrationInstanceCompleted", "ExecutionCompleted"]
    ids = [event["eventId"] for event in events if event["eventId"] >= 0]
    assert all(before < after for before, after in itertools.pairwise(ids))
    assert all(datetime.fromisoformat(event["timestamp"]).year > 2000 for event in events)


def test_the_events_of_a_history_refer_to_each_other(seen):
    events = {event["type"]: event for event in seen["history"]}
    started = events["ExecutionStarted"]
    assert (started["name"], started["input"]) == ("three_steps", '{"of":"three"}')
    assert started["orchestrationInstance"]["instanceId"] == "three-steps"
    assert re.fullmatch("[0-9a-f]{32}", started["orchestrationInstance"]["executionId"])
    assert events["TaskCompleted"]["taskScheduledId"] == events["TaskScheduled"]["eventId"]
    assert events["TimerFired"]["timerId"] == events["TimerCreated"]["eventId"]
    assert events["TimerFired"]["fireAt"] == events["TimerCreated"]["fireAt"]
    child = events["SubOrchestrationInstanceCreated"]
    assert events["SubOrchestrationInstanceCompleted"]["taskScheduledId"] == child["eventId"]
    assert child["name"] == "empty"
    assert events["ExecutionCompleted"]["orchestrationStatus"] == "ORCHESTRATION_STATUS_COMPLETED"


def test_pages_hold_as_many_as_asked_for_and_prefixes_are_literal(seen):
    query = seen["query"]
    assert query["sizes"] == [3, 3, 2]
    assert query["ids"] == [f"query-%_{number}" for number in range(7)] + ["query-%_live"]
    assert (query["completed"], query["outputs"]) == (7, [None] * 7)


def test_purge_takes_the_children_along_when_recursive(seen):
    assert seen["purge_recursively"] == {"count": 2, "child": None}


def test_ended_instances_are_listed_page_by_page_in_order_of_their_end(seen):
    assert seen["list_ids"] == ["listed-1", "listed-2", "listed-3"]


def test_purge_by_criteria_takes_what_they_match_and_nothing_else(seen):
    assert seen["purge_by_criteria"] == {"count": 1, "failed": None, "done": "COMPLETED"}


def test_an_ended_instance_is_restarted_under_its_id_or_a_new_one_with_its_tags(seen):
    restart = seen["restart"]
    assert (restart["same"], restart["again"], restart["tags"]) == (True, completed(4), {"kept": "yes"})
    assert restart["other"] == completed(4)


def test_a_running_instance_is_restarted_under_a_new_id_only(seen):
    assert "cannot be restarted" in seen["restart"]["refused"]
    assert seen["restart"]["twin"] == completed(["twin"])
    assert "was not found" in seen["restart"]["nobody"]


def test_a_failed_instance_goes_on_after_a_rewind_and_so_does_one_with_a_failed_child(seen):
    rewind = seen["rewind"]
    assert rewind["failed"] == "FAILED"
    assert rewind["after"] == rewind["family"] == completed([2, "recovered"])


def test_what_cannot_be_rewound_is_told(seen):
    assert re.search("not allow|precondition|running", seen["rewind"]["refused"], re.IGNORECASE)
    assert "was not found" in seen["rewind"]["nobody"]
