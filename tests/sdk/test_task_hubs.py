"""Creating and deleting task hubs over gRPC: only where the server's settings allow it, and only that hub's data."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from durabletask.client import OrchestrationStatus
from durabletask.internal import orchestrator_service_pb2 as pb

from checker import check_hub
from hubs import Hub
from postgres import create_database
from server import ServerProcess

COMPLETED = OrchestrationStatus.COMPLETED


class Gate:
    """Lets activities hang until they are told to go on."""

    running = threading.Event()
    go_on = threading.Event()


def do_hang(_, value):
    Gate.running.set()
    Gate.go_on.wait(30)
    return value


def do_echo(_, value):
    return value


def hanging(ctx, value):
    return (yield ctx.call_activity(do_hang, input=value))


def echoing(ctx, value):
    return (yield ctx.call_activity(do_echo, input=value))


def waiting(ctx, _):
    return (yield ctx.wait_for_external_event("go"))


FUNCTIONS = (do_hang, do_echo, hanging, echoing, waiting)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def managed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that lets clients manage its two hubs."""
    folder: Path = tmp_path_factory.mktemp("managed")
    database = (f"sqlite:///{folder / 'hub.db'}" if request.param == "sqlite"
                else create_database(request.getfixturevalue("postgres_server")))
    process = ServerProcess(database, folder / "server.log", "--manage-task-hubs", "--task-hub", "default",
                            "--task-hub", "second").start()
    yield process
    assert process.stop() == 0
    assert "Traceback" not in (folder / "server.log").read_text()


def delete(client, hub):
    client._stub.DeleteTaskHub(pb.DeleteTaskHubRequest(), metadata=hub.metadata)


def create(client, hub, *, recreate=False):
    client._stub.CreateTaskHub(pb.CreateTaskHubRequest(recreateIfExists=recreate), metadata=hub.metadata)


def output(client, instance_id):
    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
    assert state.runtime_status == COMPLETED
    return json.loads(state.serialized_output)


def started(client, function, instance_id, value=None):
    client.schedule_new_orchestration(function, instance_id=instance_id, input=value)
    client.wait_for_orchestration_start(instance_id, timeout=30)


@pytest.mark.parametrize("recreate", [False, True])
def test_a_server_without_the_setting_refuses_and_changes_nothing(server, fresh_id, recreate):
    hub = Hub(server, "second")
    with hub.client() as client:
        instance_id = client.schedule_new_orchestration("nobody", instance_id=fresh_id("kept"))
        for call in (lambda: delete(client, hub), lambda: create(client, hub, recreate=recreate)):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "--manage-task-hubs" in caught.value.details()
        assert client.get_orchestration_state(instance_id) is not None


@pytest.mark.parametrize("wipe", [delete, lambda client, hub: create(client, hub, recreate=True)], ids=["delete", "recreate"])
def test_a_hub_that_is_emptied_under_load_goes_on_being_served(managed, fresh_id, wipe):
    """With an activity out at a worker, instances that wait, and others queued: the next ones run as if on a new hub."""
    first, second = Hub(managed, "default"), Hub(managed, "second")
    ids = {name: fresh_id(name) for name in ("hang", "wait", "queued", "other")}
    Gate.running.clear()
    Gate.go_on.clear()
    with first.client() as client, second.client() as other, first.worker(*FUNCTIONS), second.worker(*FUNCTIONS):
        started(other, waiting, ids["other"])
        started(client, waiting, ids["wait"])
        client.schedule_new_orchestration(hanging, instance_id=ids["hang"], input="old")
        assert Gate.running.wait(20)
        client.schedule_new_orchestration("nobody knows it", instance_id=ids["queued"])
        wipe(client, first)
        assert client.get_all_orchestration_states() == []
        started(client, waiting, ids["wait"])
        client.schedule_new_orchestration(echoing, instance_id=ids["hang"], input="new")
        assert output(client, ids["hang"]) == "new"
        Gate.go_on.set()
        client.raise_orchestration_event(ids["wait"], "go", data="mine")
        assert output(client, ids["wait"]) == "mine"
        assert output(client, client.schedule_new_orchestration(echoing, input=1)) == 1
        other.raise_orchestration_event(ids["other"], "go", data="untouched")
        assert output(other, ids["other"]) == "untouched"
    assert check_hub(managed.database) == []


def test_creating_a_hub_that_is_there_changes_nothing(managed, fresh_id):
    hub = Hub(managed, "default")
    with hub.client() as client:
        instance_id = client.schedule_new_orchestration("nobody", instance_id=fresh_id("kept"))
        create(client, hub)
        assert client.get_orchestration_state(instance_id) is not None
        delete(client, hub)
        create(client, hub)
        assert client.get_orchestration_state(instance_id) is None


def test_a_hub_that_is_not_served_is_neither_created_nor_deleted(managed):
    hub = Hub(managed, "nowhere")
    with hub.client() as client:
        for call in (delete, create):
            with pytest.raises(grpc.RpcError) as caught:
                call(client, hub)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_hub_can_be_emptied_again_and_again(managed):
    hub = Hub(managed, "second")
    with hub.client() as client, hub.worker(*FUNCTIONS):
        for number in range(5):
            assert output(client, client.schedule_new_orchestration(echoing, instance_id="same", input=number)) == number
            delete(client, hub)
    assert check_hub(managed.database) == []
