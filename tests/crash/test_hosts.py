"""Three servers on one database, one of them killed or stopped for longer than its lease: the others go on (I2, I6)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from crash.flows import RESULTS
from crash.test_kills import COUNT, WorkerProcess, all_completed, quiet_client, results, start_all
from server import ServerProcess
from tables import count, rows

LEASE = 3.0
PARTITIONS = 6


@pytest.fixture
def servers(database_url: str, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Three servers, each with a worker of its own."""
    with ExitStack() as stack:
        found = []
        for number in range(3):
            server = ServerProcess(database_url, tmp_path / f"server{number}.log", "--lease-seconds", str(LEASE),
                                   "--partitions", str(PARTITIONS)).start()
            stack.callback(server.kill)
            worker = WorkerProcess(server.address)
            worker.start()
            stack.callback(worker.kill)
            found.append(server)
        yield found


def owners(database_url: str) -> dict[int, int]:
    """How many partitions each server has, by process id."""
    return dict(rows(database_url, "SELECT h.pid, count(*) FROM partitions p JOIN hosts h ON h.hub_id = p.hub_id "
                                   "AND h.host_id = p.owner GROUP BY h.pid"))


def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to it in time"
        time.sleep(0.05)  # the database is asked, since the servers must not know


def shared(database_url: str, servers: list[ServerProcess]) -> bool:
    return owners(database_url) == {server.pid: PARTITIONS // len(servers) for server in servers}


def test_of_three_servers_one_is_killed_and_everything_completes(database_url, servers):
    until(lambda: shared(database_url, servers))
    with quiet_client(servers[0].address) as client:
        ids = start_all(client)
        until(lambda: count(database_url, "history") > COUNT)
        servers[1].kill()
        until(lambda: shared(database_url, [servers[0], servers[2]]))
        all_completed(client, ids, database_url)
        assert [results(client, instance_id) for instance_id in ids] == [RESULTS] * COUNT
    servers[1].start()
    until(lambda: shared(database_url, servers))


def test_a_server_that_was_stopped_for_three_leases_commits_nothing_and_recovers(database_url, servers):
    until(lambda: shared(database_url, servers))
    with quiet_client(servers[0].address) as client:
        ids = start_all(client)
        until(lambda: count(database_url, "history") > COUNT)
        stalled = servers[1]
        before = epochs(database_url, stalled)
        stop_between_writes(database_url, stalled)
        end = time.monotonic() + 3 * LEASE
        try:
            until(lambda: shared(database_url, [servers[0], servers[2]]))
            all_completed(client, ids, database_url)
            time.sleep(max(0.0, end - time.monotonic()))  # that is what it is stopped for
        finally:
            stalled.send(signal.SIGCONT)
        done = rows(database_url, "SELECT count(*), sum(history_count), sum(row_version) FROM instances")
        until(lambda: shared(database_url, servers))
        assert done == rows(database_url, "SELECT count(*), sum(history_count), sum(row_version) FROM instances")
        assert all(after > before[partition] for partition, after in epochs(database_url).items() if partition in before)
        assert [results(client, instance_id) for instance_id in ids] == [RESULTS] * COUNT
    with quiet_client(stalled.address) as client:
        again = client.schedule_new_orchestration("journey", input=1)
        assert client.wait_for_orchestration_completion(again, timeout=30).runtime_status.name == "COMPLETED"
    assert stalled.stop() == 0


def stop_between_writes(database_url: str, server: ServerProcess) -> None:
    """Stop a server where it holds up nobody: on SQLite one that is stopped inside a transaction stops all others."""
    for _ in range(50):
        server.send(signal.SIGSTOP)
        seen = beats(database_url, server)
        end = time.monotonic() + LEASE / 2
        while time.monotonic() < end:
            if beats(database_url, server) != seen:
                return
            time.sleep(0.05)  # the database is asked, since the servers must not know
        server.send(signal.SIGCONT)
    message = "the server was always stopped inside a transaction"
    raise AssertionError(message)


def beats(database_url: str, server: ServerProcess) -> dict[int, int]:
    """The last heartbeats of the other servers."""
    return dict(rows(database_url, f"SELECT pid, heartbeat_at FROM hosts WHERE pid <> {server.pid}"))


def epochs(database_url: str, server: ServerProcess | None = None) -> dict[int, int]:
    where = "" if server is None else (f" JOIN hosts h ON h.hub_id = p.hub_id AND h.host_id = p.owner "
                                       f"WHERE h.pid = {server.pid}")
    return dict(rows(database_url, f"SELECT p.partition, p.epoch FROM partitions p{where}"))
