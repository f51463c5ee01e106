"""What every SDK's users see of orchestrations, whatever the language of worker and client."""

from __future__ import annotations

import pytest

from polyglot.languages import completed, every, languages, terminated


@every
def test_an_empty_orchestration_completes(seen):
    assert seen["empty"] == completed("done")


@every
def test_activities_run_one_after_the_other(seen):
    assert seen["chain"] == completed(10)


@every
def test_two_hundred_activities_fan_out_and_in(seen):
    assert seen["fan_out"] == completed(sum(range(200)))


@every
def test_children_give_their_results_to_their_parent(seen):
    assert seen["family"] == completed(10)


@every
def test_thirty_orchestrations_run_at_once(seen):
    assert seen["many_at_once"] == [3] * 30


@every
def test_a_timer_is_never_early_and_one_in_the_past_fires_at_once(seen):
    timers = seen["timers"]
    assert timers["future"]["status"] == timers["past"]["status"] == "COMPLETED"
    assert 0 <= timers["future"]["output"] < 10_000
    assert timers["past"]["output"] >= 10_000


@every
def test_events_arrive_in_the_order_in_which_they_were_raised(seen):
    assert seen["events"] == completed(list(range(10)))


@every
def test_an_event_raised_before_the_wait_is_kept(seen):
    assert seen["event_before_wait"] == completed("early")


@every
def test_a_wait_for_an_event_ends_with_the_event_or_its_timeout(seen):
    assert seen["event_timeouts"] == {"event": completed("approved"), "timeout": completed("timed out")}


@every
def test_continue_as_new_carries_each_event_over_exactly_once(seen):
    """Not every SDK keeps their order."""
    assert sorted(seen["continue_as_new"]["events"]["output"]) == list(range(10))
    assert seen["continue_as_new"]["counter"] == completed(5)


@every
@pytest.mark.parametrize("where", ["activity", "orchestration", "child", "unknown_activity", "unknown_orchestration"])
def test_what_fails_is_failed_for_the_client(seen, where):
    state = seen["failures"][where]
    assert (state["status"], state["output"]) == ("FAILED", None)


@languages("javascript", "java")
@pytest.mark.parametrize(("where", "text"), [("activity", "no nails"), ("orchestration", "no screws"), ("child", "no bolts"),
                                             ("unknown_activity", "nobody_has_this")])
def test_a_failure_reaches_the_client_with_its_message(seen, where, text):
    """Go's client shows no failure details."""
    assert text in seen["failures"][where]["failure"]["message"]


@every
def test_a_failure_without_a_message_is_a_failure(seen):
    assert seen["failures"]["nothing"] == completed("failed")


@every
def test_activities_and_children_are_retried_until_they_succeed_or_the_attempts_end(seen):
    retries = seen["retries"]
    assert (retries["activity"], retries["child"]) == (completed(3), completed(3))
    assert retries["in_vain"]["status"] == "FAILED"


@every
def test_terminate_ends_a_running_instance_with_its_output_once(seen):
    ended = terminated({"reason": "enough"})
    assert seen["terminate"] == {"ended": ended, "again": ended}


@every
def test_a_terminated_child_fails_for_its_parent(seen):
    state = seen["terminated_child"]
    assert state["status"] == "COMPLETED"
    assert "terminated" in state["output"]


@every
def test_a_scheduled_instance_is_terminated_at_once(seen):
    assert seen["terminate_scheduled"] == terminated("never")


@every
def test_a_suspended_instance_holds_its_events_until_it_is_resumed(seen):
    assert seen["suspend"] == {"before": "SUSPENDED", "after": completed([0, 1, 2])}


@every
def test_a_suspended_instance_can_be_terminated(seen):
    assert seen["terminate_suspended"] == terminated("asleep")


@every
def test_custom_status_is_visible_while_waiting_and_overwritten(seen):
    assert seen["custom_status"] == [{"step": 1}, "", "höchste Zeit 🎉"]


@every
def test_a_scheduled_start_waits_for_its_time(seen):
    start = seen["scheduled_start"]
    assert start["before"] == "PENDING"
    assert 0 <= start["late"] < 10_000


@every
def test_the_clock_of_an_orchestration_that_starts_at_once_is_now(seen):
    assert 0 <= seen["first_clock"] < 60_000


@every
def test_an_id_in_use_is_refused_and_one_of_an_ended_instance_is_replaced(seen):
    ids = seen["ids_in_use"]
    assert "already exists" in ids["refused"]
    assert ids["replaced"] == completed("done")


@every
def test_a_bad_id_is_told(seen):
    assert "reserved for entities" in seen["bad_input"]["id"]


@every
def test_an_unknown_instance_does_not_exist_and_a_wait_for_it_times_out(seen):
    unknown = seen["unknown_instance"]
    assert unknown["state"] is None
    assert "time" in unknown["wait"].lower() or "deadline" in unknown["wait"].lower()


@every
def test_payloads_come_back_as_they_were_sent_under_any_id(seen):
    texts = seen["unicode"]
    assert texts["same"]
    assert texts["got"] == texts["sent"] != []


@every
def test_a_megabyte_goes_through_input_event_and_output(seen):
    assert seen["megabyte"] == [True, True]


@every
def test_ended_instances_are_purged_and_live_ones_are_not(seen):
    assert seen["purge"] == {"counts": [0, 1, 0], "gone": None}
