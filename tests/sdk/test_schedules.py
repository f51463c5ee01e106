"""The SDK's recurring schedules, which are entities that signal themselves and start orchestrations."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from durabletask.client import OrchestrationStatus
from durabletask.scheduled import (
    ScheduleCreationOptions,
    ScheduledTaskClient,
    ScheduleQuery,
    ScheduleStatus,
    ScheduleUpdateOptions,
)

from sdk.test_entities import eventually


def tick(ctx, text):
    return text
    yield


@pytest.fixture
def client(hub):
    with hub.client() as client:
        yield client


@pytest.fixture
def schedules(hub, client):
    with hub.worker(tick) as worker:
        worker.stop()
        worker.configure_scheduled_tasks()
        worker.start()
        yield ScheduledTaskClient(client, operation_timeout=30)


def runs(client, schedule_id):
    return [state for state in client.get_all_orchestration_states()
            if state.instance_id.startswith(f"{schedule_id}-2")]


def options(schedule_id, **parts):
    return ScheduleCreationOptions(schedule_id=schedule_id, orchestration_name="tick", orchestration_input="tock",
                                   interval=timedelta(seconds=1), start_immediately_if_late=True, **parts)


def test_a_schedule_runs_again_and_again_until_it_is_paused(client, schedules, fresh_id):
    schedule_id = fresh_id("schedule")
    schedule = schedules.create_schedule(options(schedule_id))
    eventually(lambda: len(runs(client, schedule_id)) >= 2, wanted=True)
    first = client.wait_for_orchestration_completion(runs(client, schedule_id)[0].instance_id, timeout=20)
    assert (first.runtime_status, json.loads(first.serialized_output)) == (OrchestrationStatus.COMPLETED, "tock")
    schedule.pause()
    assert schedule.describe().status == ScheduleStatus.PAUSED
    paused = len(runs(client, schedule_id))
    schedule.resume()
    eventually(lambda: len(runs(client, schedule_id)) > paused, wanted=True)
    schedule.delete()
    assert schedules.get_schedule(schedule_id) is None


def test_schedules_are_listed_updated_and_told_when_they_cannot(client, schedules, fresh_id):
    names = [fresh_id("listed") for _ in range(3)]
    for name in names:
        schedules.create_schedule(options(name))
    found = schedules.list_schedules(ScheduleQuery(schedule_id_prefix="listed", page_size=2))
    assert sorted(one.schedule_id for one in found) == sorted(names)
    schedule = schedules.get_schedule_client(names[0])
    schedule.update(ScheduleUpdateOptions(interval=timedelta(hours=1)))
    assert schedule.describe().interval == timedelta(hours=1)
    with pytest.raises(RuntimeError, match="resume"):
        schedule.resume()
    for name in names:
        schedules.get_schedule_client(name).delete()
