"""Locks of other sessions under a running server: who needs them waits and is reported, everybody else goes on."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest
from durabletask.client import OrchestrationStatus

from checker import check_hub
from crash import flows
from durabletask_sql.ids import partition_of
from durabletask_sql.storage import writer
from hubs import Hub
from server import ServerProcess
from tables import rows

COMPLETED = OrchestrationStatus.COMPLETED


def ear(ctx, _):
    return (yield ctx.wait_for_external_event("word"))


@pytest.fixture
def server(request, tmp_path):
    process = ServerProcess(request.getfixturevalue("url"), tmp_path / "server.log").start()
    yield process
    assert process.stop() == 0


def eventually(found, seconds=30.0):
    """Ask until it is so; a process next door tells nobody."""
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until
        time.sleep(0.01)


class TestPostgres:
    @pytest.fixture
    def url(self, postgres_url):
        return postgres_url

    def test_a_row_that_another_session_holds_delays_its_own_instance_alone(self, url, server):
        """The instance that needs the row is reported with the cause after 5 s, and goes on when the row is free."""
        hub = Hub(server)
        with hub.client() as client, hub.worker(ear, flows.do_step, flows.journey, flows.child):
            held = client.schedule_new_orchestration(ear, instance_id="held")
            eventually(lambda: rows(url, "SELECT 1 FROM instances WHERE instance_id = 'held' AND history_count > 0"))
            with psycopg.connect(url, application_name="intruder") as other:
                other.execute("SELECT 1 FROM instances WHERE instance_id = 'held' FOR UPDATE")
                client.raise_orchestration_event(held, "word", data="heard")
                ids = [client.schedule_new_orchestration("journey", input=number) for number in range(20)]
                for number, instance_id in enumerate(ids):
                    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
                    assert json.loads(state.serialized_output) == flows.expected(number)
                eventually(lambda: "'held' has waited 5 s for a row that another session holds" in server.log.read_text())
                assert re.search(rf"held by pid {other.info.backend_pid} \(application 'intruder', user '\w+', idle in transaction\), "
                                 r"whose transaction has been open for \d+ s", server.log.read_text())
                assert client.get_orchestration_state(held).runtime_status is OrchestrationStatus.RUNNING
                other.rollback()
            state = client.wait_for_orchestration_completion(held, timeout=30)
            assert (state.runtime_status, state.serialized_output) == (COMPLETED, '"heard"')
        assert check_hub(url) == []

    def test_an_id_that_a_users_open_transaction_holds_delays_its_own_parent_alone(self, url, server):
        """A sub-orchestration's id is inserted elsewhere and neither committed nor rolled back for some seconds."""
        hub = Hub(server)
        copy = ("INSERT INTO instances (hub_id, partition, instance_id, execution_id, generation, row_version, name, status, "
                "created_at, updated_at, history_count, last_turn_at) SELECT hub_id, %s, 'wanted', 'x', 0, 1, 'n', 6, 1, 1, 0, 0 "
                "FROM task_hubs")

        def parent(ctx, _):
            return (yield ctx.call_sub_orchestrator("child", input=(1, flows.FILLER), instance_id="wanted"))

        with hub.client() as client, hub.worker(parent, flows.do_step, flows.journey, flows.child):
            with psycopg.connect(url) as other:
                other.execute(copy, (partition_of("wanted", 16),))
                waiting = client.schedule_new_orchestration(parent)
                ids = [client.schedule_new_orchestration("journey", input=number) for number in range(20)]
                for number, instance_id in enumerate(ids):
                    state = client.wait_for_orchestration_completion(instance_id, timeout=30)
                    assert json.loads(state.serialized_output) == flows.expected(number)
                assert client.get_orchestration_state(waiting).runtime_status is not COMPLETED
                other.rollback()
            state = client.wait_for_orchestration_completion(waiting, timeout=30)
            assert (state.runtime_status, state.serialized_output) == (COMPLETED, "2")
        assert check_hub(url) == []


class TestSqlite:
    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path / 'hub.db'}"

    @pytest.fixture
    def turn(self, tmp_path):
        """Opens the file by which the processes take turns at writing."""
        with ExitStack() as opened:
            yield lambda: opened.enter_context((tmp_path / "hub.db.writer").open("r+b")).fileno()

    def test_an_open_transaction_of_another_process_is_told_within_a_second_and_loses_nothing(self, url, server):
        """Clients wait as long as it is open; what they asked for is committed right after."""
        hub, other = Hub(server), sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        with hub.client() as client, hub.worker(flows.do_step, flows.journey, flows.child), ThreadPoolExecutor(8) as pool:
            before = client.schedule_new_orchestration("journey", input=1)
            other.execute("BEGIN IMMEDIATE")
            calls = [pool.submit(client.schedule_new_orchestration, "journey", input=number, instance_id=f"journey-{number}")
                     for number in range(8)]
            eventually(lambda: "has held the write lock" in server.log.read_text())
            said = next(line for line in server.log.read_text().splitlines() if "has held the write lock" in line)
            answered = threading.Event()
            for call in calls:
                call.add_done_callback(lambda _: answered.set())
            assert not answered.wait(0.3)
            other.execute("COMMIT")
            ids = [call.result(30) for call in calls]  # the first comes within 250 ms (tests/conformance/test_locks.py)
            for number, instance_id in enumerate(ids):
                state = client.wait_for_orchestration_completion(instance_id, timeout=30)
                assert json.loads(state.serialized_output) == flows.expected(number)
            assert client.wait_for_orchestration_completion(before, timeout=30).runtime_status is COMPLETED
        other.close()
        # No later than the first look after so long a wait; how busy the machine is, is not asked.
        assert writer._FIRST_REPORT_SECONDS + writer._LOOK_SECONDS < 1.0
        assert f"another process (pid {os.getpid()}, '" in said or sys.platform != "linux"
        assert "nothing can be committed before its transaction ends, nothing is lost" in said
        assert said.endswith("waiting: have it commit or roll back, or end it")
        assert check_hub(url) == []

    @pytest.fixture
    def waiting(self, url, tmp_path, turn):
        """A server that waits for its turn to write, or will as soon as it writes."""
        process = ServerProcess(url, tmp_path / "server.log").start()
        fcntl.flock(turn(), fcntl.LOCK_EX)
        yield process
        process.kill()

    def test_a_server_that_waits_for_its_turn_to_write_stops_in_bounded_time(self, waiting):
        waiting.send(signal.SIGTERM)
        assert not waiting.is_running(30)  # 10 s for work in progress, 5 s for the rest
        assert waiting.stop() == 1
        assert "without giving its partitions back" in waiting.log.read_text()

    def test_a_second_signal_stops_a_server_at_once_that_waits_for_its_turn_to_write(self, url, waiting):
        waiting.send(signal.SIGTERM)
        assert waiting.is_running(0.5)
        waiting.send(signal.SIGINT)  # the same once more would be one signal for a server that has had no time since
        assert not waiting.is_running(10)
        assert waiting.stop() == 1
        said = waiting.log.read_text()
        assert said.count("without giving its partitions back") == 1
        assert f"database {url}" in said

    def test_a_server_that_waits_for_its_turn_before_it_is_ready_stops_as_well(self, url, tmp_path, turn):
        assert ServerProcess(url, tmp_path / "server.log").start().stop() == 0
        fcntl.flock(turn(), fcntl.LOCK_EX)
        log = tmp_path / "server.log"
        with log.open("a") as said, subprocess.Popen(
                [sys.executable, "-m", "durabletask_sql", "serve", "--database", url, "--listen", "127.0.0.1:0"],
                stdout=said, stderr=said, stdin=subprocess.DEVNULL) as process:
            try:
                eventually(lambda: "another process has held the write lock" in log.read_text())
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGINT)
                assert process.wait(10) == 1
            finally:
                process.kill()
        assert "without giving its partitions back" in log.read_text()
