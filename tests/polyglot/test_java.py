"""What the Java SDK shows beyond what every language does."""

from __future__ import annotations

import pytest

from polyglot.languages import completed

pytestmark = pytest.mark.java


@pytest.fixture
def seen(scenarios):
    return scenarios("java")


@pytest.mark.parametrize(("where", "kind"), [("activity", "com.microsoft.durabletask.TaskFailedException"),
                                             ("orchestration", "scenarios.OutOfStockException"),
                                             ("child", "com.microsoft.durabletask.TaskFailedException")])
def test_a_failure_keeps_its_type_and_stack_trace(seen, where, kind):
    failure = seen["failures"][where]["failure"]
    assert failure["type"] == kind
    assert failure["traced"]


def test_an_orchestration_sends_an_event_to_another(seen):
    assert seen["event_between_orchestrations"] == completed(["from another orchestration"])


def test_a_cleared_custom_status_is_none(seen):
    assert seen["cleared_status"] is None


def test_uuids_differ_and_survive_replay(seen):
    first, second = seen["uuids"]["output"]
    assert first != second


def test_purging_an_unknown_instance_counts_nothing(seen):
    assert seen["unknown_instance"]["purged"] == 0


def test_pages_hold_as_many_as_asked_for_and_prefixes_are_literal(seen):
    assert seen["query"] == {"sizes": [3, 3, 2], "completed": 7,
                             "ids": [f"query-%_{number}" for number in range(7)] + ["query-%_live"]}


def test_an_ended_instance_is_started_again_under_its_id_and_under_a_new_one(seen):
    assert seen["restart"] == {"same": True, "again": completed(4), "other": True, "fresh": completed(4)}


def test_purge_by_criteria_takes_what_they_match_and_nothing_else(seen):
    purged = seen["purge_by_criteria"]
    assert (purged["count"], purged["failed"], purged["done"]) == (1, None, "COMPLETED")
    assert "TimeoutException" in purged["late"]

def test_task_hubs_are_managed_only_where_the_server_allows_it(seen):
    assert len(seen["hubs"]) == 2
    assert all("PERMISSION_DENIED" in refusal for refusal in seen["hubs"])
