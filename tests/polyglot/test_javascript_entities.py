"""Entities of the JavaScript SDK: signals, calls, locks, deletion and queries, as its own suite pins them."""

from __future__ import annotations

import pytest

from polyglot.languages import completed


@pytest.fixture
def seen(scenarios):
    return scenarios("javascript")


def test_signals_add_up_and_metadata_tells_what_is_known(seen):
    entity = seen["entity_signals"]
    assert (entity["id"], entity["backlogQueueSize"], entity["lockedBy"]) == ("@counter@signalled", 0, None)
    assert abs(entity["age"]) < 60_000


def test_an_orchestration_calls_an_entity_and_its_signals_come_in_order(seen):
    assert seen["entity_calls"]["counting"] == completed([5, 8, 10])


def test_a_failed_operation_fails_its_call_and_changes_no_state(seen):
    failure, state = seen["entity_calls"]["failing"]["output"]
    assert "no more numbers" in failure
    assert state == 1


def test_a_call_of_an_entity_that_nobody_has_fails(seen):
    assert "nobody" in seen["entity_calls"]["unknown"]["output"]


def test_locks_keep_transfers_apart(seen):
    assert seen["entity_locks"] == {"transfers": [True] * 10, "left": 80, "right": 20}


def test_a_locked_entity_names_its_holder_and_lets_nobody_else_in(seen):
    assert seen["entity_locked_by"] == {"by": "the-holder", "during": 1, "after": None}


def test_a_lock_ends_with_its_holder(seen):
    assert seen["entity_lock_of_the_dead"] == 2


def test_a_deleted_entity_is_not_there_and_begins_afresh(seen):
    assert seen["entity_deletion"] == {"gone": None, "again": 7}


def test_a_delayed_signal_waits_for_its_time_and_makes_no_entity_before(seen):
    delayed = seen["entity_delayed_signal"]
    assert delayed["before"] is None
    assert 0 <= delayed["late"] < 10_000


def test_entities_signal_others_and_start_orchestrations(seen):
    assert seen["entity_effects"] == completed("done")


def test_queries_page_by_prefix_and_leave_states_out_on_request(seen):
    queries = seen["entity_queries"]
    assert queries["sizes"] == [2, 2, 1]
    assert queries["ids"] == [f"@counter@listed-{number}" for number in range(5)]
    assert queries["states"] == [1] * 5
    assert queries["bare"] == [False] * 5


def test_an_entity_id_that_is_too_long_is_refused(seen):
    assert "INVALID_ARGUMENT" in seen["entity_id_too_long"]
    assert "length" in seen["entity_id_too_long"]


def test_there_is_nothing_to_clean_up(seen):
    assert seen["entity_clean_up"] == [0, 0]
