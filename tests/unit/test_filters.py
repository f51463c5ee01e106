"""Work-item filters: what a GetWorkItems request says, and what is taken (wire.md 4.7)."""

from __future__ import annotations

import pytest

from durabletask_sql.model.filters import WorkFilters, name_filter
from durabletask_sql.ports.work import Needs, Profile, WorkKind
from durabletask_sql.protocol import taskhub_pb2 as pb
from durabletask_sql.sidecar.agents import GO_EVENTS, MESSAGE_LIMIT, known_events, profile_of

PYTHON = "grpc-python-asyncio/1.80.0 grpc-c/52.0.0"


def filters(**kinds):
    """The filters of a request whose message is there, with these names: a list of names, or of (name, versions)."""
    request = pb.GetWorkItemsRequest()
    request.workItemFilters.SetInParent()
    for kind, names in kinds.items():
        for name in names:
            text, versions = (name, []) if isinstance(name, str) else name
            added = getattr(request.workItemFilters, kind).add(name=text)
            if versions:
                added.versions.extend(versions)
    return request


def takes(request, kind, name, version=None):
    found = kind.filter_of(profile_of(PYTHON, request).filters)
    return found is None or found.takes(name, version)


@pytest.mark.parametrize("kind", WorkKind)
def test_without_the_message_everything_is_taken(kind):
    assert takes(pb.GetWorkItemsRequest(), kind, "any", "1")


@pytest.mark.parametrize("kind", WorkKind)
def test_an_empty_list_takes_nothing_of_its_kind(kind):
    assert not takes(filters(), kind, "any")


def test_a_name_without_versions_takes_any_version():
    request = filters(orchestrations=["flow"])
    assert takes(request, WorkKind.ORCHESTRATION, "flow")
    assert takes(request, WorkKind.ORCHESTRATION, "flow", "7")
    assert not takes(request, WorkKind.ORCHESTRATION, "Flow")
    assert not takes(request, WorkKind.ACTIVITY, "flow")


def test_versions_are_compared_whole_and_ignoring_case_and_none_is_the_empty_one():
    request = filters(activities=[("step", ["1.0-Beta", ""])])
    for version in ("1.0-beta", "1.0-BETA", None, ""):
        assert takes(request, WorkKind.ACTIVITY, "step", version), version
    for version in ("1.0", "1.0-beta2"):
        assert not takes(request, WorkKind.ACTIVITY, "step", version), version


def test_an_unversioned_item_is_not_taken_by_a_name_with_versions():
    assert not takes(filters(orchestrations=[("flow", ["1"])]), WorkKind.ORCHESTRATION, "flow", None)


def test_a_name_that_is_repeated_adds_up():
    request = filters(orchestrations=[("flow", ["1"]), ("flow", ["2"]), ("other", ["1"]), "other"])
    assert [takes(request, WorkKind.ORCHESTRATION, "flow", version) for version in ("1", "2", "3")] == [True, True, False]
    assert takes(request, WorkKind.ORCHESTRATION, "other", "9")


def test_entities_are_named_in_any_case():
    assert takes(filters(entities=["CounterEntity"]), WorkKind.ENTITY, "counterentity")


def test_entities_of_a_java_worker_are_taken_although_its_filters_leave_them_out():
    request = filters(orchestrations=["flow"])
    request.maxConcurrentEntityWorkItems = 1
    assert takes(request, WorkKind.ENTITY, "counter")
    request.maxConcurrentOrchestrationWorkItems = 100  # only Java sends an entity limit alone
    assert not takes(request, WorkKind.ENTITY, "counter")


def test_what_a_worker_can_do_is_told_by_its_agents_and_capabilities():
    request = pb.GetWorkItemsRequest(capabilities=[pb.WORKER_CAPABILITY_HISTORY_STREAMING])
    assert profile_of(PYTHON, pb.GetWorkItemsRequest()) == Profile(WorkFilters(), MESSAGE_LIMIT)
    assert profile_of("grpc-dotnet/2.60", request) == Profile(WorkFilters(), MESSAGE_LIMIT, streams_history=True)
    assert profile_of("durabletask-js grpc-node-js/1.12", pb.GetWorkItemsRequest()).message_bytes is None
    for silent in ("grpc-go/1.60.1", "grpc-java-netty/1.59.0"):
        assert not profile_of(silent, pb.GetWorkItemsRequest()).echoes_tokens
    assert known_events("grpc-go/1.60.1") == GO_EVENTS
    assert known_events(PYTHON) is None


def test_go_is_sent_no_event_that_it_panics_on():
    deadly = {"eventSent", "genericEvent", "historyState", "executionCompleted", "continueAsNew", "executionRewound",
              "entityOperationSignaled", "entityOperationCalled", "entityOperationCompleted", "entityOperationFailed",
              "entityLockRequested", "entityLockGranted", "entityUnlockSent"}
    fields = pb.HistoryEvent.DESCRIPTOR.oneofs_by_name["eventType"].fields
    assert {field.name for field in fields if field.number not in GO_EVENTS} == deadly | {"orchestratorCompleted"}


@pytest.mark.parametrize(("profile", "needs", "met"), [
    (Profile(), Needs(10**9), True),
    (Profile(message_bytes=100), Needs(100), True),
    (Profile(message_bytes=100), Needs(101, 5), False),
    (Profile(message_bytes=100, streams_history=True), Needs(101, 5), True),
    (Profile(message_bytes=100, streams_history=True), Needs(300, 101), False),
    (Profile(echoes_tokens=False), Needs(echo=True), False),
    (Profile(echoes_tokens=False), Needs(5), True),
])
def test_a_profile_meets_what_an_item_needs(profile, needs, met):
    assert profile.meets(needs) is met


def test_filters_of_the_same_names_are_the_same_profile():
    one = name_filter([("a", ["1", "2"]), ("b", [])])
    two = name_filter([("b", []), ("a", ["2"]), ("a", ["1"])])
    assert Profile(WorkFilters(orchestrations=one)) == Profile(WorkFilters(orchestrations=two))
    assert len({Profile(WorkFilters(orchestrations=one)), Profile(WorkFilters(orchestrations=two))}) == 1
