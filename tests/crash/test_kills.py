"""SIGKILL of the server, and of the worker, while 200 orchestrations run: all complete, nothing counts twice.

DURABLETASK_SQL_KILLS sets how often (default 4), DURABLETASK_SQL_SEEDS which moments (numbers with commas). The full run:

    DURABLETASK_SQL_KILLS=20 DURABLETASK_SQL_SEEDS=1,2,3 python3 dev.py test tests/crash
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient

from checker import check_hub
from crash.flows import RESULTS, expected
from server import ServerProcess
from tables import count

KILLS = int(os.environ.get("DURABLETASK_SQL_KILLS", "4"))
SEEDS = [int(seed) for seed in os.environ.get("DURABLETASK_SQL_SEEDS", "1").split(",")]
COUNT = 200
TURNS = 7 * COUNT  # all journeys and their children together take at least so many turns, each a row of history
FLOWS = Path(__file__).with_name("flows.py")


class WorkerProcess:
    """The SDK's worker in a process of its own. It is started anew after a kill: its SDK waits up to 30 s otherwise."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, str(FLOWS), self._address], stdin=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(database_url, tmp_path / "server.log").start()
    yield process
    process.kill()


@pytest.fixture
def worker(server: ServerProcess) -> Iterator[WorkerProcess]:
    process = WorkerProcess(server.address)
    process.start()
    yield process
    process.kill()


@contextmanager
def quiet_client(address: str) -> Iterator[TaskHubGrpcClient]:
    """A client whose complaints about servers that are away nobody needs."""
    logger = logging.Logger("crash test")
    logger.addHandler(logging.NullHandler())
    client = TaskHubGrpcClient(host_address=address, logger=logger)
    yield client
    client.close()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[TaskHubGrpcClient]:
    with quiet_client(server.address) as found:
        yield found


def start_all(client: TaskHubGrpcClient) -> list[str]:
    return [client.schedule_new_orchestration("journey", input=number, instance_id=f"journey-{number}")
            for number in range(COUNT)]


def patiently(call):
    """Repeat a call while the server is away."""
    for _ in range(300):
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.1)  # nothing tells a client that a server is back but asking it
    message = "the server did not come back"
    raise AssertionError(message)


def all_completed(client: TaskHubGrpcClient, ids: list[str], database_url: str) -> None:
    for number, instance_id in enumerate(ids):
        state = patiently(lambda instance_id=instance_id: client.wait_for_orchestration_completion(instance_id, timeout=90))
        assert state.runtime_status == OrchestrationStatus.COMPLETED, state
        assert json.loads(state.serialized_output) == expected(number)
    assert check_hub(database_url) == []


def results(client: TaskHubGrpcClient, instance_id: str) -> int:
    return sum(type(event).__name__ == "TaskCompletedEvent" for event in client.get_orchestration_history(instance_id))


@pytest.fixture(params=SEEDS, ids="seed {}".format)
def moments(request: pytest.FixtureRequest, database_url: str) -> Iterator[None]:
    """The moments of the kills: each item comes when a random share of all turns is committed."""
    chosen = sorted(random.Random(request.param).sample(range(1, int(0.9 * TURNS)), KILLS))

    def come() -> Iterator[None]:
        for turns in chosen:
            while count(database_url, "history") < turns:
                time.sleep(0.001)  # the database is asked, since the server must not know
            yield

    return come()


def test_killed_servers_lose_nothing_and_count_nothing_twice(database_url, server, worker, client, moments):
    ids = start_all(client)
    for _ in moments:
        server.kill()
        server.start()
        worker.kill()
        worker.start()
    all_completed(client, ids, database_url)
    assert [results(client, instance_id) for instance_id in ids] == [RESULTS] * COUNT


def test_killed_workers_lose_nothing_and_count_nothing_twice(database_url, server, worker, client, moments):
    ids = start_all(client)
    for _ in moments:
        worker.kill()
        worker.start()
    all_completed(client, ids, database_url)
    assert [results(client, instance_id) for instance_id in ids] == [RESULTS] * COUNT
    assert server.stop() == 0
    server.start()
