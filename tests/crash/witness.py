"""Load on a SQLite server with a record of what it has acknowledged, and what a state of its files must show."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from durabletask.client import TaskHubGrpcClient

from checker import check_hub
from crash.flows import expected
from server import ServerProcess

FLOWS = Path(__file__).with_name("flows.py")
STARTERS, WAITERS = 2, 4


@dataclass
class Witness:
    """What clients were told: numbers of journeys that were started, and of those that completed."""

    started: list[int] = field(default_factory=list)
    completed: list[int] = field(default_factory=list)
    pause: threading.Event = field(default_factory=threading.Event)  # while set, nothing is started

    def copy(self) -> Witness:
        # Completions first: who knows of an end knows of its start.
        completed = list(self.completed)
        return Witness(list(self.started), completed)


@contextlib.contextmanager
def under_load(server: ServerProcess, witness: Witness) -> Iterator[None]:
    """Keep starting journeys, with a worker that runs them, and record what is acknowledged."""
    logger = logging.Logger("load")
    logger.addHandler(logging.NullHandler())
    worker = subprocess.Popen([sys.executable, str(FLOWS), server.address], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    client = TaskHubGrpcClient(host_address=server.address, logger=logger)
    ended = threading.Event()

    def start(first: int) -> None:
        number = first
        while not ended.wait(0.01):
            if witness.pause.is_set():
                continue
            with contextlib.suppress(grpc.RpcError):
                client.schedule_new_orchestration("journey", input=number, instance_id=f"journey-{number}")
                witness.started.append(number)
            number += STARTERS

    def wait(part: int) -> None:
        seen = part
        while not ended.wait(0.005):
            if seen < len(witness.started):
                number = witness.started[seen]
                with contextlib.suppress(grpc.RpcError, TimeoutError):
                    client.wait_for_orchestration_completion(f"journey-{number}", timeout=20)
                    witness.completed.append(number)
                seen += WAITERS

    threads = [*(threading.Thread(target=start, args=(first,), daemon=True) for first in range(STARTERS)),
               *(threading.Thread(target=wait, args=(part,), daemon=True) for part in range(WAITERS))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        client.close()
        worker.kill()
        worker.communicate()
        for thread in threads:
            thread.join(30)


def examine(path: Path, witness: Witness, *, doctor: bool) -> None:
    """Check that a state of the files opens, is legal (for the doctor too), and has everything that was acknowledged."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    known = dict(connection.execute("SELECT instance_id, status FROM instances"))
    connection.close()
    assert [number for number in witness.started if f"journey-{number}" not in known] == []
    assert [number for number in witness.completed if known[f"journey-{number}"] != 1] == []
    assert check_hub(f"sqlite:///{path}") == []
    if doctor:
        done = subprocess.run([sys.executable, "-m", "durabletask_sql", "doctor", "--database", f"sqlite:///{path}"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def finish(server: ServerProcess, witness: Witness) -> None:
    """Have a server that was started on such a state run everything that was acknowledged to its end."""
    worker = subprocess.Popen([sys.executable, str(FLOWS), server.address], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    client = TaskHubGrpcClient(host_address=server.address)
    try:
        for number in witness.started:
            state = client.wait_for_orchestration_completion(f"journey-{number}", timeout=60)
            assert json.loads(state.serialized_output) == expected(number)
    finally:
        client.close()
        worker.kill()
        worker.communicate()
