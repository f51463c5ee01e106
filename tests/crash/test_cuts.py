"""Connections to PostgreSQL that are cut around COMMIT while orchestrations run: nothing is lost, nothing counts twice."""

from __future__ import annotations

import itertools
import json
import os
import random
import threading

import pytest
from durabletask.client import OrchestrationStatus

from checker import check_hub
from crash import flows
from hubs import Hub
from proxy import CommitCutter
from server import ServerProcess

CUTS = int(os.environ.get("DURABLETASK_SQL_KILLS", "10"))
COUNT = 60
MORE = 20 * CUTS


@pytest.fixture
def cutter(postgres_url):
    proxy = CommitCutter(postgres_url)
    yield proxy
    proxy.close()


def start(client, number):
    return client.schedule_new_orchestration("journey", input=number, instance_id=f"journey-{number}")


def test_connections_cut_around_commit_lose_nothing_and_count_nothing_twice(cutter, postgres_url, tmp_path):
    """Clients' calls are settled by the server: none fails, though their transactions are cut as well."""
    server = ServerProcess(cutter.url, tmp_path / "server.log").start()
    hub, stopped, moments = Hub(server), threading.Event(), random.Random(1)

    def cut():
        while cutter.cuts < CUTS and not stopped.wait(moments.uniform(0.02, 0.3)):
            cutter.arm(moments.choice(("before", "after")))

    cutting = threading.Thread(target=cut)
    try:
        with hub.client() as client, hub.worker(flows.do_step, flows.journey, flows.child):
            cutting.start()
            ids = [start(client, number) for number in range(COUNT)]
            for number in itertools.count():
                if number == len(ids):  # on a fast machine that was too soon: one after the other until there were enough
                    if cutter.cuts >= CUTS:
                        break
                    assert number < COUNT + MORE
                    ids.append(start(client, number))
                state = client.wait_for_orchestration_completion(ids[number], timeout=90)
                assert state.runtime_status is OrchestrationStatus.COMPLETED, state
                assert json.loads(state.serialized_output) == flows.expected(number)
            results = [sum(type(event).__name__ == "TaskCompletedEvent" for event in client.get_orchestration_history(one))
                       for one in ids]
        assert results == [flows.RESULTS] * len(ids)
        assert check_hub(postgres_url) == []
    finally:
        stopped.set()
        cutting.join()
        assert server.stop() == 0
