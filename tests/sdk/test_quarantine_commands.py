"""`durabletask-sql quarantine` beside a running server: what it lists can be put back, or given up."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from durabletask.client import OrchestrationStatus

from sdk.raw_worker import RawWorker, complete, stub
from server import ServerProcess

BAD = complete(5, "x")
BAD.completeOrchestration.orchestrationStatus = 0  # an execution cannot end as running


def run(server, action, *arguments, hub="default"):
    return subprocess.run(
        [sys.executable, "-m", "durabletask_sql", "quarantine", action, *arguments, "--database", server.database,
         "--task-hub", hub], capture_output=True, text=True, check=False, timeout=60)


def listed(server, *arguments):
    done = run(server, "list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def poisoned(hub, server: ServerProcess, fresh_id):
    """An instance whose first turn was answered so often in a way that cannot be carried out that it was set aside."""
    instance_id = fresh_id("poison")
    with stub(server.address) as calls, hub.client() as client:
        worker = RawWorker(calls)
        client.schedule_new_orchestration("flow", instance_id=instance_id)
        for _ in range(5):
            worker.answer_turn(worker.next(), BAD)
        worker.close()
    return instance_id


def test_what_was_set_aside_is_listed_shown_and_put_back(hub, server, poisoned):
    (item,) = listed(server, "--instance", poisoned)
    assert (item["kind"], item["name"], item["attempts"], item["instanceStatus"]) == ("turn", "flow", 5, "pending")
    assert "cannot end with status" in item["cause"]
    assert item["worker"]
    line = run(server, "list", "--instance", poisoned).stdout
    assert line.startswith(f"{item['id']}  ")
    shown = json.loads(run(server, "show", item["id"], "--payloads", "--json").stdout)
    assert [list(event) for event in shown["rows"][0]["events"]] == [["eventId", "timestamp", "executionStarted"]]
    done = run(server, "redrive", item["id"])
    assert (done.returncode, done.stdout) == (0, "1 of 1 items were put back\n")
    with stub(server.address) as calls, hub.client() as client:
        worker = RawWorker(calls)
        worker.answer_turn(worker.next(), complete(1, '"fine"'))
        state = client.wait_for_orchestration_completion(poisoned, timeout=30)
        worker.close()
    assert (state.runtime_status, state.serialized_output) == (OrchestrationStatus.COMPLETED, '"fine"')
    assert listed(server, "--instance", poisoned) == []


def test_what_was_set_aside_is_given_up(hub, server, poisoned):
    assert run(server, "fail", "--instance", poisoned).stdout == "1 of 1 items were given up\n"
    with hub.client() as client:
        state = client.wait_for_orchestration_completion(poisoned, timeout=30)
    assert state.runtime_status == OrchestrationStatus.FAILED
    assert state.failure_details.error_type == "SetAside"
    assert "cannot end with status" in state.failure_details.message


def test_what_is_not_there_is_told(server, tmp_path):
    done = run(server, "redrive", "m123456789")
    assert (done.returncode, "m123456789: it is not in the quarantine" in done.stdout) == (1, True)
    assert "0 of 0 items" in run(server, "redrive", "--instance", "nobody").stdout
    for arguments, hub, words in (
            (("show", "m123456789"), "default", "is not in the quarantine of this task hub"),
            (("show", "twelve"), "default", "ids look like m12"), (("list",), "nohub", "has no task hub 'nohub'"),
            (("list", "--limit", "0"), "default", "ask for 1 to 1000"),
            (("list", "--after", "x"), "default", "is not where a page of the quarantine ended")):
        done = run(server, *arguments, hub=hub)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
    missing = ServerProcess(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "log")
    assert "there is no database" in run(missing, "list").stderr
    assert not (tmp_path / "none.db").exists()
