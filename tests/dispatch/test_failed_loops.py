"""A loop of a host that ends by a bug: the host says so, stops, and leaves its work to others as one who is lost."""

from __future__ import annotations

import asyncio

import pytest

from checker import check_hub
from dispatch.bench import Worker, finish, schedule
from dispatch.hosts import PARTITIONS, Cluster, Player, on_hosts
from durabletask_sql.dispatch.deliveries import Deliveries
from durabletask_sql.dispatch.dispatcher import Dispatcher
from durabletask_sql.dispatch.loops import Loops
from durabletask_sql.dispatch.notices import Notices
from durabletask_sql.dispatch.owner import Owner
from durabletask_sql.dispatch.ownership import Ownership
from durabletask_sql.dispatch.upkeep import Upkeep
from durabletask_sql.service.waiters import Waiters
from durabletask_sql.storage.wakeups import PostgresWakeups, SqliteWakeups
from tables import rows

LOOPS = {"commits and loads": (Owner, "run"), "timers": (Dispatcher, "_run_timers"), "poll": (Dispatcher, "_run_poll"),
         "leases": (Ownership, "run"), "end of the lease": (Ownership, "watch"), "upkeep": (Upkeep, "run"),
         "notices": (Notices, "run"), "wake-ups": (PostgresWakeups, "run"), "deliveries": (Deliveries, "run"),
         "waiters": (Waiters, "run")}


@pytest.mark.parametrize("name", LOOPS)
def test_the_host_tells_which_has_failed_and_others_take_over_at_once(postgres_url, monkeypatch, name):
    bugs: list[asyncio.Event] = []

    async def broken(*_):
        bugs.append(asyncio.Event())
        await bugs[-1].wait()
        message = "a bug of the test"
        raise RuntimeError(message)

    async def test(cluster: Cluster):
        with monkeypatch.context() as patch:
            patch.setattr(*LOOPS[name], broken)
            first = await cluster.join(Worker())
            await asyncio.sleep(0)  # until the loops have begun
        second = await cluster.join(Player())
        await second.start("flow", "a")
        assert not first.host.failed.done()
        bugs[0].set()
        error = await first.host.failed
        assert f"the loop {name!r} of task hub 'default' has ended by a bug (RuntimeError: a bug of the test)" in str(error)
        cluster.members.remove(first)
        await first.host.stop()
        await cluster.until(cluster.balanced)
        assert second.partitions == set(range(PARTITIONS))
        assert second.dispatcher._deliveries._suspicion.careful
        await cluster.until(lambda: rows(postgres_url, "SELECT status FROM instances") == [(1,)])

    on_hosts(postgres_url, test)
    assert check_hub(postgres_url) == []


def test_these_are_all_the_loops_that_a_host_has(database_url, monkeypatch):
    names, start = set(), Loops.start

    def note(self, name, work):
        names.add(name)
        start(self, name, work)

    monkeypatch.setattr(Loops, "start", note)

    async def test(cluster: Cluster):
        await cluster.join()

    on_hosts(database_url, test)
    assert names == LOOPS.keys()


def test_what_was_out_when_a_turn_broke_the_host_runs_elsewhere_and_counts_once(database_url, monkeypatch):
    async def test(cluster: Cluster):
        worker, heir = Worker(), Worker()
        first = await cluster.join(worker)
        await first.start("flow", "a")
        out = await worker.turn()
        second = await cluster.join(heir)

        def broken(*_):
            message = "a bug of the test"
            raise KeyError(message)

        monkeypatch.setattr(first.dispatcher._owner, "_follow", broken)
        answer = asyncio.create_task(first.answer(out, *schedule("step")))  # is committed, and never answered
        await first.host.failed
        cluster.members.remove(first)
        await first.host.stop()
        answer.cancel()
        await second.result(await heir.activity())
        await second.answer(await heir.turn(), finish())
        assert await second.status("a") == "COMPLETED"

    on_hosts(database_url, test)
    assert check_hub(database_url) == []


def test_a_thread_that_watches_a_file_fails_the_host_when_it_ends(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    monkeypatch.setattr(SqliteWakeups, "_watch", lambda _, notify, stop: (stop.set(), notify()))

    async def test(cluster: Cluster):
        first = await cluster.join()
        assert "the thread that looks for what other processes write has ended" in str(await first.host.failed)

    on_hosts(url, test)
