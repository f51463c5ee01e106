"""Scenarios of the reference's own suites that nothing else here plays, with the unmodified Python SDK (section 9)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.internal import orchestrator_service_pb2 as pb

from hubs import Hub


def do_make(_, size):
    return "x" * size


def do_fail(_, text):
    raise ValueError(text)


def two_fan_outs(ctx, count):
    first = yield task.when_all([ctx.call_activity(do_make, input=number) for number in range(count)])
    second = yield task.when_all([ctx.call_activity(do_make, input=len(text) * 2) for text in first])
    return sum(len(text) for text in second)


def wide(ctx, counts):
    results = yield task.when_all([ctx.call_activity(do_make, input=counts[1]) for _ in range(counts[0])])
    return sum(len(text) for text in results)


def careful(ctx, text):
    try:
        yield ctx.call_activity(do_fail, input=text)
    except task.TaskFailedError as error:
        return str(error)


def watchful(ctx, _):
    """Tell where it was not replaying, and whether what it sees of itself stays the same."""
    seen = [ctx.is_replaying]
    before = (ctx.current_utc_datetime, ctx.instance_id)
    yield ctx.call_activity(do_make, input=1)
    seen.append(ctx.is_replaying)
    yield ctx.call_activity(do_make, input=2)
    seen.append(ctx.is_replaying)
    return [seen, str(before[0]), before[1]]


def reading(ctx, _):
    """Wait for an event; asks for something else when it is replayed, as code that was changed meanwhile does."""
    if ctx.is_replaying:
        yield ctx.call_sub_orchestrator(careful, input="changed")
    else:
        yield ctx.call_activity(do_make, input=1)
    return "never"


def family_of_big_children(ctx, count):
    results = yield task.when_all([ctx.call_sub_orchestrator(wide, input=[2, 100_000]) for _ in range(count)])
    return sum(results)


def do_say(_, text):
    return text


def naming(ctx, _):
    """Makes GUIDs over three turns; what it said is what they were when they were made first."""
    made, said = [], []
    for _ in range(3):
        made += [ctx.new_uuid(), ctx.new_uuid()]
        said.append((yield ctx.call_activity(do_say, input=made[-2])))
        said.append((yield ctx.call_activity(do_say, input=made[-1])))
    return made, said


@pytest.fixture(scope="module")
def client(hub: Hub) -> Iterator[TaskHubGrpcClient]:
    functions = (do_make, do_fail, do_say, naming, two_fan_outs, wide, careful, watchful, reading, family_of_big_children)
    with hub.worker(*functions), hub.client() as client:
        yield client


def run(client, function, value, instance_id=None):
    found = client.schedule_new_orchestration(function, input=value, instance_id=instance_id)
    return client.wait_for_orchestration_completion(found, timeout=60)


def output(client, function, value, instance_id=None):
    state = run(client, function, value, instance_id)
    assert state.runtime_status == OrchestrationStatus.COMPLETED, state
    return json.loads(state.serialized_output)


def test_a_fan_out_follows_another(client):
    assert output(client, two_fan_outs, 40) == sum(2 * number for number in range(40))


def test_a_fan_out_with_a_history_of_three_megabytes_comes_together(client, fresh_id):
    instance_id = fresh_id("wide")
    assert output(client, wide, [150, 20_000], instance_id) == 3_000_000
    chunks = list(client._stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance_id)))
    assert len(chunks) > 2
    assert sum(len(chunk.events) for chunk in chunks) > 300


def test_children_with_large_payloads_run_side_by_side(client):
    assert output(client, family_of_big_children, 20) == 20 * 200_000


def test_an_orchestration_goes_on_after_a_failure_that_it_handles(client):
    assert "no more ink" in output(client, careful, "no more ink")


def test_an_orchestration_sees_one_clock_and_is_told_when_it_replays(client, fresh_id):
    instance_id = fresh_id("watchful")
    seen, before, name = output(client, watchful, None, instance_id)
    assert (seen, name) == ([True, True, False], instance_id)
    chunks = client._stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=instance_id))
    first = next(event for chunk in chunks for event in chunk.events)
    assert before == str(first.timestamp.ToDatetime())


def test_guids_differ_and_are_the_same_in_each_replay(client):
    """They are made of the instance and of its turns' clocks, which the history has to keep to the microsecond."""
    made, said = output(client, naming, None)
    assert made == said
    assert len(set(made)) == 6
    assert not set(made) & set(output(client, naming, None)[0])


def test_an_orchestrator_that_changed_meanwhile_fails_and_says_so(client):
    state = run(client, reading, None)
    assert state.runtime_status == OrchestrationStatus.FAILED
    assert "NonDeterminism" in state.failure_details.error_type


def test_a_large_payload_goes_through_under_an_odd_id(client, fresh_id):
    instance_id = fresh_id("it's 100%_#/\\?@\"")
    text = "https://example.org/" + "y" * 300_000
    state = run(client, careful, text, instance_id)
    assert text in json.loads(state.serialized_output)
    assert client.purge_orchestration(instance_id).deleted_instance_count == 1
    assert client.get_orchestration_state(instance_id) is None


def test_a_query_that_finds_nothing_has_one_empty_page(client, fresh_id):
    query = pb.InstanceQuery(instanceIdPrefix={"value": fresh_id("nobody")}, maxInstanceCount=10)
    found = client._stub.QueryInstances(pb.QueryInstancesRequest(query=query))
    assert (len(found.orchestrationState), found.HasField("continuationToken")) == (0, False)
