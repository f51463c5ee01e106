"""`durabletask-sql torture` for a few seconds on each database, and what it says of a hub that is not as it must be.

DURABLETASK_SQL_TORTURE_MINUTES sets how long (default 0.2).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

from durabletask.worker import TaskHubGrpcWorker

from durabletask_sql.demo import shapes
from durabletask_sql.demo.load import Load
from durabletask_sql.ids import dice
from hubs import Hub
from server import ServerProcess
from tables import rows

MINUTES = os.environ.get("DURABLETASK_SQL_TORTURE_MINUTES", "0.2")


def torture(url, *options):
    return subprocess.Popen([sys.executable, "-m", "durabletask_sql", "torture", "--database", url, *options],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def prepare(url):
    subprocess.run([sys.executable, "-m", "durabletask_sql", "schema", "upgrade", "--database", url], check=True,
                   capture_output=True)


def test_a_torture_ends_with_a_verdict_and_leaves_nothing(database_url):
    prepare(database_url)
    process = torture(database_url, "--minutes", MINUTES, "--seed", "7", "--in-flight", "30")
    printed, _ = process.communicate(timeout=330)
    assert process.returncode == 0, printed
    assert "seed 7: 3 servers and 2 workers" in printed
    assert "GOOD" in printed.splitlines()[-1]
    assert re.search(r"SIG(KILL|STOP) of a (server|worker)", printed)
    for table in ("task_hubs", "hosts", "partitions", "instances", "history", "control_queue", "entities"):
        assert rows(database_url, f"SELECT * FROM {table}") == []


def test_an_interrupted_torture_takes_its_processes_and_its_hub_along(database_url):
    prepare(database_url)
    process = torture(database_url, "--minutes", "5", "--in-flight", "5", "--servers", "1", "--workers", "1")
    assert process.stdout is not None
    for line in process.stdout:
        if "left" in line:
            break
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert rows(database_url, "SELECT * FROM task_hubs") == []


def test_a_torture_refuses_what_it_cannot_use(tmp_path):
    for arguments, words in ((["--minutes", "0"], "--minutes 0.0 is too little"), (["--workers", "-1"], "--workers -1")):
        process = torture(f"sqlite:///{tmp_path / 'hub.db'}", *arguments)
        printed, _ = process.communicate(timeout=60)
        assert (process.returncode, words in printed) == (1, True), printed


def test_a_start_that_is_carried_out_late_makes_nothing_anew(tmp_path):
    server = ServerProcess(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path / "server.log").start()
    worker = TaskHubGrpcWorker(host_address=server.address)
    worker.add_orchestrator(shapes.chain)
    worker.add_activity(shapes.step)
    worker.start()
    load = Load(SimpleNamespace(hub="default", addresses=[server.address]), None, None, 1, dice(1))
    try:
        assert load._start("chain", 1, 0)
        with Hub(server).client() as client:  # the load's own gives a call 5 s
            first = client.wait_for_orchestration_completion("chain-1", timeout=30)
            assert load._start("chain", 1, 0)
            assert client.get_orchestration_state("chain-1").created_at == first.created_at
    finally:
        load.disconnect()
        worker.stop()
        server.stop()
