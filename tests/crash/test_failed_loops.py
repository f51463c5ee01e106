"""A real server, one of whose loops ends by a bug: it says so and exits with 1, and another goes on with its work."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack

from crash.flows import RESULTS
from crash.test_hosts import PARTITIONS, owners, shared, until
from crash.test_kills import COUNT, WorkerProcess, all_completed, quiet_client, results, start_all
from e2e.test_serve import LONG_DRAIN, Work
from hubs import Hub
from server import ServerProcess
from tables import count

LEASE = 30.0
FRAGILE = (sys.executable, "-c", LONG_DRAIN + """
import asyncio, signal
from durabletask_sql.dispatch.dispatcher import Dispatcher

async def run_timers(self):
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
    await told.wait()
    raise KeyError("a bug of the test")

Dispatcher._run_timers = run_timers
sys.exit(main(sys.argv[1:]))
""")
SENTENCE = ("durabletask-sql: the loop 'timers' of task hub 'default' has ended by a bug (KeyError: 'a bug of the test'): "
            "this host does no more work there, and has to be started again")


def test_a_server_with_a_loop_that_has_failed_exits_with_1_and_another_goes_on_with_its_work(database_url, tmp_path):
    with ExitStack() as stack:
        servers = []
        for number, command in enumerate([FRAGILE, (sys.executable, "-m", "durabletask_sql")]):
            server = ServerProcess(database_url, tmp_path / f"server{number}.log", "--lease-seconds", str(LEASE),
                                   "--partitions", str(PARTITIONS), command=command).start()
            stack.callback(server.kill)
            worker = WorkerProcess(server.address)
            worker.start()
            stack.callback(worker.kill)
            servers.append(server)
        broken, other = servers
        until(lambda: shared(database_url, servers), 15)
        with quiet_client(other.address) as client:
            ids = start_all(client)
            until(lambda: count(database_url, "history") > COUNT, 60)
            began = time.monotonic()
            broken.send(signal.SIGUSR1)
            assert broken.wait(10) == 1
            until(lambda: owners(database_url) == {other.pid: PARTITIONS}, 10)
            assert time.monotonic() - began < LEASE / 2
            all_completed(client, ids, database_url)
            assert [results(client, instance_id) for instance_id in ids] == [RESULTS] * COUNT
        assert broken.log.read_text().splitlines()[-1] == SENTENCE


def test_a_server_that_waits_for_work_in_progress_does_not_wait_when_a_loop_has_failed(database_url, tmp_path):
    server = ServerProcess(database_url, tmp_path / "server.log", command=FRAGILE).start()
    work, hub = Work(), Hub(server)
    with ExitStack() as stack:
        stack.callback(server.kill)
        client = stack.enter_context(hub.client())
        stack.enter_context(hub.worker(*work.functions))
        stack.callback(work.release.set)
        client.schedule_new_orchestration("holder")
        assert work.begun.wait(30)
        server.send(signal.SIGTERM)
        assert server.is_running(0.5)
        server.send(signal.SIGUSR1)
        assert server.wait(30) == 1
    assert server.log.read_text().splitlines()[-1] == SENTENCE
