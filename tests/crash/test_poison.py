"""One item that kills its worker and one that kills its server, among healthy ones; and kills that are no item's doing.

DURABLETASK_SQL_POISON sets how many healthy items there are (default 60), DURABLETASK_SQL_INNOCENT how many wait while
the server is killed DURABLETASK_SQL_INNOCENT_KILLS times (default 100 and 4). The full run:

    DURABLETASK_SQL_POISON=2000 DURABLETASK_SQL_INNOCENT=5000 DURABLETASK_SQL_INNOCENT_KILLS=50 \\
        python3 dev.py test tests/crash/test_poison.py
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub

from crash.poison_worker import KILL_SERVER, KILL_WORKER
from server import ServerProcess
from tables import rows

HEALTHY = int(os.environ.get("DURABLETASK_SQL_POISON", "60"))
WAITING = int(os.environ.get("DURABLETASK_SQL_INNOCENT", "100"))
KILLS = int(os.environ.get("DURABLETASK_SQL_INNOCENT_KILLS", "4"))
MOST_LOSSES = 10
WORKER = Path(__file__).with_name("poison_worker.py")
_LOOK_SECONDS = 0.02


class Pair:
    """A server and a worker, each a process of its own; either is started anew when it is gone."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.losses = 0
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._worker = subprocess.Popen([sys.executable, str(WORKER), self.server.address, str(self.server.pid)],
                                        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        assert self._worker is not None
        self._worker.kill()
        self._worker.communicate()

    def restart(self) -> None:
        """Start the server anew; the worker as well, since its SDK would wait up to 30 s before it connects again."""
        self.stop()
        self.server.start()
        self.start()

    def mend(self) -> None:
        """Start what is gone, and count it."""
        assert self._worker is not None
        if not self.server.is_running(_LOOK_SECONDS):
            self.losses += 1
            self.restart()
        elif self._worker.poll() is not None:
            self.losses += 1
            self.stop()
            self.start()

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Mend until a condition holds, which is asked of the database: the processes must not know."""
        end = time.monotonic() + seconds
        while not condition():
            self.mend()
            assert time.monotonic() < end, f"not in {seconds} s; {self.losses} losses so far"


@pytest.fixture
def pair(database_url: str, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(ServerProcess(database_url, tmp_path / "server.log").start())
    pair.start()
    yield pair
    pair.stop()
    pair.server.kill()


def start(server: ServerProcess, words: list[str]) -> None:
    """Start an instance for each word, its number being its id; once more when the server went away meanwhile."""
    with grpc.insecure_channel(server.address) as channel:
        stub = TaskHubSidecarServiceStub(channel)
        for number, word in enumerate(words):
            with suppress(grpc.RpcError):
                stub.StartInstance(pb.CreateInstanceRequest(instanceId=str(number), name="flow",
                                                            input={"value": json.dumps(word)}))


def completed(url: str) -> int:
    return int(rows(url, "SELECT count(*) FROM instances WHERE status = 1")[0][0])


def aside(url: str) -> list[tuple[str, int]]:
    return [(instance, attempts) for instance, attempts in rows(url, "SELECT instance_id, attempts FROM quarantine")]


@pytest.mark.parametrize("word", [KILL_WORKER, KILL_SERVER])
def test_an_item_that_kills_is_set_aside_within_ten_losses_and_no_other(pair, database_url, word):
    pair.stop()  # everything waits when the worker comes
    words = ["healthy"] * HEALTHY
    words.insert(HEALTHY // 10, word)
    start(pair.server, words)
    pair.start()
    pair.until(lambda: bool(aside(database_url)) and completed(database_url) == HEALTHY, 60 + HEALTHY / 5)
    assert [instance for instance, _ in aside(database_url)] == [str(HEALTHY // 10)]
    assert pair.losses <= MOST_LOSSES


def test_kills_of_the_server_set_nothing_aside(pair, database_url):
    start(pair.server, ["healthy"] * WAITING)
    for number in sorted(random.Random(1).sample(range(1, int(0.9 * WAITING)), KILLS)):
        pair.until(lambda number=number: completed(database_url) >= number, 120)
        pair.server.kill()
        pair.restart()
    pair.until(lambda: completed(database_url) == WAITING, 120 + WAITING / 5)
    assert aside(database_url) == []
