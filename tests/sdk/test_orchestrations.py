"""What every workflow does: activities, fan-out, timers, events, sub-orchestrations, continue-as-new."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.worker import ConcurrencyOptions

from hubs import Hub

Ids = Callable[[str], str]


def do_add_one(_, number):
    return number + 1


def do_echo(_, value):
    return value


def do_fail(_, text):
    raise ValueError(text)


_attempts: dict[str, int] = {}


def do_fail_twice(_, key):
    _attempts[key] = _attempts.get(key, 0) + 1
    if _attempts[key] < 3:
        raise RuntimeError(f"attempt {_attempts[key]}")
    return _attempts[key]


def empty(_, __):
    return "done"


def chain(ctx, count):
    number = 0
    for _ in range(count):
        number = yield ctx.call_activity(do_add_one, input=number)
    return number


def fan_out(ctx, count):
    results = yield task.when_all([ctx.call_activity(do_echo, input=number) for number in range(count)])
    return sum(results)


def parent(ctx, count):
    results = yield task.when_all([ctx.call_sub_orchestrator(chain, input=2) for _ in range(count)])
    return sum(results)


def sleeper(ctx, milliseconds):
    before = ctx.current_utc_datetime
    fire_at = before + timedelta(milliseconds=milliseconds)
    yield ctx.create_timer(fire_at)
    return (ctx.current_utc_datetime - fire_at).total_seconds()


def listener(ctx, count):
    got = []
    for _ in range(count):
        got.append((yield ctx.wait_for_external_event("news")))
    return got


def late_listener(ctx, _):
    yield ctx.create_timer(ctx.current_utc_datetime + timedelta(milliseconds=300))
    return (yield ctx.wait_for_external_event("news"))


def impatient(ctx, milliseconds):
    event = ctx.wait_for_external_event("approval")
    timeout = ctx.create_timer(ctx.current_utc_datetime + timedelta(milliseconds=milliseconds))
    winner = yield task.when_any([event, timeout])
    return "approved" if winner == event else "timed out"


def collector(ctx, state):
    event = yield ctx.wait_for_external_event("item")
    state = [*(state or []), event]
    if len(state) == 20:
        return state
    ctx.continue_as_new(state, save_events=True)
    return None


def counter(ctx, number):
    if number < 10:
        ctx.continue_as_new(number + 1)
        return None
    return number


def failing_activity(ctx, text):
    yield ctx.call_activity(do_fail, input=text)


def failing(_, text):
    raise KeyError(text)


def failing_child_parent(ctx, text):
    yield ctx.call_sub_orchestrator(failing, input=text)


def retrying(ctx, key):
    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=5)
    return (yield ctx.call_activity(do_fail_twice, input=key, retry_policy=policy))


def retrying_in_vain(ctx, text):
    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=2)
    yield ctx.call_activity(do_fail, input=text, retry_policy=policy)


def flaky_child(ctx, key):
    _attempts[key] = _attempts.get(key, 0) + (0 if ctx.is_replaying else 1)
    if _attempts[key] < 3:
        raise RuntimeError("not yet")
    return _attempts[key]


def retrying_child_parent(ctx, key):
    policy = task.RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=5)
    return (yield ctx.call_sub_orchestrator(flaky_child, input=key, retry_policy=policy))


def reporting(ctx, _):
    ctx.set_custom_status({"step": 1})
    yield ctx.wait_for_external_event("go")
    ctx.set_custom_status("höchste Zeit 🎉")
    return "ok"


FUNCTIONS = (do_add_one, do_echo, do_fail, do_fail_twice, empty, chain, fan_out, parent, sleeper, listener,
             late_listener, impatient, collector, counter, failing_activity, failing, failing_child_parent, retrying,
             retrying_in_vain, flaky_child, retrying_child_parent, reporting)


@pytest.fixture(scope="module")
def client(hub: Hub) -> Iterator[TaskHubGrpcClient]:
    with hub.worker(*FUNCTIONS), hub.client() as client:
        yield client


def run(client, function, value, timeout=30):
    instance_id = client.schedule_new_orchestration(function, input=value)
    state = client.wait_for_orchestration_completion(instance_id, timeout=timeout)
    assert state is not None
    return state


def output(client, function, value, timeout=30):
    state = run(client, function, value, timeout)
    assert state.runtime_status == OrchestrationStatus.COMPLETED, state
    return json.loads(state.serialized_output)


def test_an_empty_orchestration_completes(client):
    assert output(client, empty, None) == "done"


def test_activities_run_one_after_the_other(client):
    assert output(client, chain, 10) == 10


def test_a_thousand_activities_fan_out_and_in(client):
    assert output(client, fan_out, 1000, timeout=90) == sum(range(1000))


def test_ten_parents_with_three_children_each_get_their_results(client):
    ids = [client.schedule_new_orchestration(parent, input=3) for _ in range(10)]
    states = [client.wait_for_orchestration_completion(instance_id, timeout=60) for instance_id in ids]
    assert [json.loads(state.serialized_output) for state in states] == [6] * 10


def test_a_timer_is_never_early(client):
    assert 0 <= output(client, sleeper, 400) < 5


def test_a_timer_in_the_past_fires_at_once(client):
    assert output(client, sleeper, -10_000) > 0


def test_events_arrive_in_the_order_in_which_they_were_raised(client):
    instance_id = client.schedule_new_orchestration(listener, input=10)
    for number in range(10):
        client.raise_orchestration_event(instance_id, "news", data=number)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == list(range(10))


def test_an_event_raised_before_the_wait_is_kept(client):
    instance_id = client.schedule_new_orchestration(late_listener)
    client.raise_orchestration_event(instance_id, "news", data="early")
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == "early"


def test_a_wait_for_an_event_times_out(client):
    assert output(client, impatient, 200) == "timed out"


def test_an_event_beats_its_timeout(client):
    instance_id = client.schedule_new_orchestration(impatient, input=30_000)
    client.raise_orchestration_event(instance_id, "approval")
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == "approved"


def test_continue_as_new_carries_each_event_over_exactly_once(client):
    instance_id = client.schedule_new_orchestration(collector)
    for number in range(20):
        client.raise_orchestration_event(instance_id, "item", data=number)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == list(range(20))


def test_continue_as_new_keeps_the_creation_time(client):
    instance_id = client.schedule_new_orchestration(counter, input=0)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == 10
    assert state.created_at < state.last_updated_at
    assert json.loads(state.serialized_input) == 10


def test_a_failed_activity_fails_its_orchestration_with_details(client):
    state = run(client, failing_activity, "kaputt")
    assert state.runtime_status == OrchestrationStatus.FAILED
    assert "kaputt" in state.failure_details.message
    assert state.failure_details.stack_trace


def test_a_failed_orchestration_keeps_type_and_message(client):
    state = run(client, failing, "missing")
    assert state.runtime_status == OrchestrationStatus.FAILED
    assert "KeyError" in state.failure_details.error_type
    assert "missing" in state.failure_details.message


def test_a_failed_child_fails_its_parent(client):
    state = run(client, failing_child_parent, "missing")
    assert state.runtime_status == OrchestrationStatus.FAILED
    assert "missing" in state.failure_details.message


def test_an_activity_is_retried_until_it_succeeds(client, hub, fresh_id):
    assert output(client, retrying, fresh_id(hub.server.database)) == 3


def test_retries_end_with_the_last_failure(client):
    state = run(client, retrying_in_vain, "never")
    assert state.runtime_status == OrchestrationStatus.FAILED
    assert "never" in state.failure_details.message


def test_a_sub_orchestration_is_retried_under_its_id(client, hub, fresh_id):
    assert output(client, retrying_child_parent, fresh_id(hub.server.database)) == 3


def test_custom_status_is_visible_while_waiting_and_overwritten(client):
    instance_id = client.schedule_new_orchestration(reporting)
    client.wait_for_orchestration_start(instance_id, timeout=30)
    state = client.get_orchestration_state(instance_id)
    assert json.loads(state.serialized_custom_status) == {"step": 1}
    client.raise_orchestration_event(instance_id, "go")
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_custom_status) == "höchste Zeit 🎉"


def test_a_megabyte_goes_through_input_activity_event_and_output(client):
    text = "x" * 1_000_000
    instance_id = client.schedule_new_orchestration(listener, input=1)
    client.raise_orchestration_event(instance_id, "news", data=text)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == [text]


@pytest.mark.parametrize("text", ["größer 🎉 漢字", "line\nbreak\ttab", "\u0001\u001f", "quote\"'\\", "https://example.org/x", "\u0000"])
def test_payloads_come_back_as_they_were_sent(client, text):
    instance_id = client.schedule_new_orchestration(listener, input=1)
    client.raise_orchestration_event(instance_id, "news", data=text)
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert json.loads(state.serialized_output) == [text]


def test_a_hundred_activities_fan_out_to_a_worker_with_one_thread(server, fresh_id):
    second = Hub(server, "second")
    one = ConcurrencyOptions(maximum_concurrent_activity_work_items=1, maximum_concurrent_orchestration_work_items=1,
                             maximum_thread_pool_workers=1)
    with second.worker(do_echo, fan_out, concurrency=one), second.client() as client:
        assert output(client, fan_out, 100, timeout=60) == sum(range(100))
