"""Workers of several languages in one hub, each asking for what it has by name: orchestrations reach over."""

from __future__ import annotations

import json

import pytest
from durabletask.client import OrchestrationStatus

from hubs import Hub
from polyglot.languages import completed

HUB = "between"


def do_who_python(_, name):
    return f"{name} of Python"


def do_add_one_python(_, number):
    return number + 1


def chain_python(ctx, count):
    number = 0
    for _ in range(count):
        number = yield ctx.call_activity(do_add_one_python, input=number)
    return number


def calls_javascript(ctx, name):
    greeting = yield ctx.call_activity("who", input=name)
    return [greeting, (yield ctx.call_sub_orchestrator("chain", input=3))]


def there_and_back(ctx, name):
    """A Python parent of a JavaScript child that calls Python."""
    return (yield ctx.call_sub_orchestrator("calls_python", input=name))


FUNCTIONS = (do_who_python, do_add_one_python, chain_python, calls_javascript, there_and_back)


@pytest.fixture
def javascript(programs):
    return programs("javascript", HUB)


@pytest.fixture
def hub(server):
    return Hub(server, HUB)


def test_javascript_and_python_call_each_others_activities_and_orchestrations(javascript, hub):
    with javascript.worker("filtered"), hub.worker(*FUNCTIONS, filtered=True), hub.client() as client:
        assert javascript.client("calls_python")["calls_python"] == completed(["Ada of Python", 3])
        ids = {"calls_javascript": ["Ada of JavaScript", 3], "there_and_back": ["Ada of Python", 3]}
        for name in ids:
            client.schedule_new_orchestration(name, instance_id=name, input="Ada")
        for name, output in ids.items():
            state = client.wait_for_orchestration_completion(name, timeout=30)
            assert state.runtime_status == OrchestrationStatus.COMPLETED, state
            assert json.loads(state.serialized_output) == output


def test_a_strictly_versioned_worker_gets_the_activities_of_its_orchestrations_and_no_other_version(javascript, hub):
    """Its filters ask for activities of its version, which the SDK does not send with them."""
    with hub.client() as client, javascript.worker("filtered", "2.0"):
        other = client.schedule_new_orchestration("chain", input=3, version="1.0")
        own = client.schedule_new_orchestration("chain", input=3, version="2.0")
        assert client.wait_for_orchestration_completion(own, timeout=30).serialized_output == "3"
        assert client.get_orchestration_state(other).runtime_status == OrchestrationStatus.PENDING
        with javascript.worker("filtered", "1.0"):
            assert client.wait_for_orchestration_completion(other, timeout=30).serialized_output == "3"


def test_work_that_no_connected_worker_has_waits_for_one_that_has_it(javascript, hub):
    with hub.client() as client:
        with hub.worker(*FUNCTIONS, filtered=True):
            waiting = client.schedule_new_orchestration("calls_javascript", input="Grace")
            behind = client.schedule_new_orchestration(chain_python, input=2)
            assert client.wait_for_orchestration_completion(behind, timeout=30).serialized_output == "2"
            client.wait_for_orchestration_start(waiting, timeout=30)
            assert client.get_orchestration_state(waiting).runtime_status == OrchestrationStatus.RUNNING
            with javascript.worker("filtered"):
                state = client.wait_for_orchestration_completion(waiting, timeout=30)
        assert json.loads(state.serialized_output) == ["Grace of JavaScript", 3]
