"""Versions with the unmodified SDK: who runs what, what children and later executions get, what queries say (S-103, S-183)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from durabletask.client import OrchestrationQuery, OrchestrationStatus
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.worker import TaskHubGrpcWorker, VersionFailureStrategy, VersioningOptions, VersionMatchStrategy

from hubs import Hub

COMPLETED, FAILED = OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED


def do_echo(_, value):
    return value


def telling(ctx, _):
    return [ctx.version, (yield ctx.call_activity(do_echo, input="done"))]


def parent(ctx, version):
    asked = {} if version is None else {"version": version}
    return (yield ctx.call_sub_orchestrator(telling, **asked))


def moving(ctx, rest):
    if rest:
        version, *rest = rest
        asked = {} if version is None else {"new_version": version}
        ctx.continue_as_new(rest, **asked)
        return None
    return ctx.version


def waiting(ctx, _):
    return (yield ctx.wait_for_external_event("go"))


@pytest.fixture
def hub(server) -> Hub:
    return Hub(server, "second")


@contextmanager
def worker(hub: Hub, version: str | None = None, match=VersionMatchStrategy.STRICT,
           failure=VersionFailureStrategy.FAIL, default: str | None = None) -> Iterator[None]:
    made = TaskHubGrpcWorker(host_address=hub.server.address, metadata=hub.metadata)
    for function in (telling, parent, moving, waiting):
        made.add_orchestrator(function)
    made.add_activity(do_echo)
    if version is not None or default is not None:
        made.use_versioning(VersioningOptions(version=version, default_version=default, match_strategy=match,
                                              failure_strategy=failure))
    made.start()
    try:
        yield
    finally:
        made.stop()


def output(client, instance_id):
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert state.runtime_status == COMPLETED, state
    return json.loads(state.serialized_output)


def version_of(client, instance_id):
    state = client._stub.GetInstance(pb.GetInstanceRequest(instanceId=instance_id)).orchestrationState
    return state.version.value if state.HasField("version") else None


def test_a_strict_worker_runs_its_version_and_fails_another(hub):
    with hub.client() as client, worker(hub, "1.0"):
        right = client.schedule_new_orchestration(telling, version="1.0")
        wrong = client.schedule_new_orchestration(telling, version="2.0")
        assert output(client, right) == ["1.0", "done"]
        state = client.wait_for_orchestration_completion(wrong, timeout=30)
        assert state.runtime_status == FAILED
        assert state.failure_details.error_type == "VersionMismatch"


def test_what_a_worker_rejects_waits_for_one_that_takes_it(hub, fresh_id):
    with hub.client() as client, worker(hub, "1.0", failure=VersionFailureStrategy.REJECT):
        instance_id = client.schedule_new_orchestration(telling, instance_id=fresh_id("v"), version="2.0")
        assert output(client, client.schedule_new_orchestration(telling, version="1.0")) == ["1.0", "done"]
        assert client.get_orchestration_state(instance_id).runtime_status == OrchestrationStatus.PENDING
        with worker(hub, "2.0", failure=VersionFailureStrategy.REJECT):
            assert output(client, instance_id) == ["2.0", "done"]


def test_a_worker_of_the_current_or_older_versions_takes_no_newer_one(hub):
    with hub.client() as client, worker(hub, "1.5", VersionMatchStrategy.CURRENT_OR_OLDER):
        assert output(client, client.schedule_new_orchestration(telling, version="1.4")) == ["1.4", "done"]
        newer = client.schedule_new_orchestration(telling, version="1.6")
        assert client.wait_for_orchestration_completion(newer, timeout=30).runtime_status == FAILED


def test_a_child_has_the_version_of_its_call_or_its_workers_default_and_never_its_parents(hub):
    with hub.client() as client:
        with worker(hub):
            assert output(client, client.schedule_new_orchestration(parent, version="1", input="3")) == ["3", "done"]
            assert output(client, client.schedule_new_orchestration(parent, version="1"))[0] in (None, "")
        with worker(hub, match=VersionMatchStrategy.NONE, default="7"):
            assert output(client, client.schedule_new_orchestration(parent, version="1")) == ["7", "done"]


def test_continue_as_new_keeps_the_version_or_takes_the_new_one(hub):
    with hub.client() as client, worker(hub):
        instance_id = client.schedule_new_orchestration(moving, version="1", input=[None, "2", None])
        assert output(client, instance_id) == "2"
        assert version_of(client, instance_id) == "2"


def test_queries_and_histories_tell_the_version_or_that_there_is_none(hub, fresh_id):
    with hub.client() as client:
        prefix = fresh_id("version")
        for version in ("1.2", None):
            client.schedule_new_orchestration(waiting, instance_id=f"{prefix}-{version}", version=version)
        found = client._stub.QueryInstances(pb.QueryInstancesRequest(query=pb.InstanceQuery(
            instanceIdPrefix={"value": prefix}, maxInstanceCount=10))).orchestrationState
        assert {state.instanceId: state.version.value if state.HasField("version") else None for state in found} == {
            f"{prefix}-1.2": "1.2", f"{prefix}-None": None}
        assert len(client.get_all_orchestration_states(OrchestrationQuery(instance_id_prefix=prefix))) == 2
        with worker(hub):
            for version in ("1.2", None):
                client.wait_for_orchestration_start(f"{prefix}-{version}", timeout=30)
                chunks = client._stub.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=f"{prefix}-{version}"))
                started = next(event.executionStarted for chunk in chunks for event in chunk.events
                               if event.HasField("executionStarted"))
                assert started.HasField("version") is (version is not None)
                client.terminate_orchestration(f"{prefix}-{version}")
