"""Two hosts of one hub tell each other what they write: nobody waits for a poll, which these tests make rare."""

from __future__ import annotations

import asyncio
import logging

import psycopg
import pytest

from dispatch.bench import SECONDS, Bench, HandClock, Worker, finish, only, schedule
from durabletask_sql.dispatch import dispatcher
from durabletask_sql.dispatch.notices import Notices
from durabletask_sql.host import Host
from durabletask_sql.model.status import Status
from durabletask_sql.service import waiters
from durabletask_sql.service.abstraction import Signal
from durabletask_sql.settings import Settings
from durabletask_sql.storage import wakeups
from proxy import Rewriter

SELDOM = 3_600.0


@pytest.fixture
def seldom(monkeypatch):
    """Nothing is found by polling."""
    for name in ("_FIRST_POLL_SECONDS", "_LAST_POLL_SECONDS", "_RARE_POLL_SECONDS"):
        monkeypatch.setattr(dispatcher, name, SELDOM)
    monkeypatch.setattr(waiters, "_POLL_SECONDS", SELDOM)


def line(bench):
    return bench.runtime.dispatcher._wakeups


def on_hosts(url, test, *, acquainted=True):
    """Run a test on the owner of all partitions and on another host, once they know of each other."""
    async def run():
        hosts = []
        try:
            for _ in range(2):
                hosts.append(await Host.open(Settings(database=url, upgrade=True, partitions=1)))
                await hosts[-1].start()
            benches = [Bench(host.hubs["default"], HandClock()) for host in hosts]
            if acquainted and not hosts[0].store.is_sqlite:
                await benches[0].until(lambda: all(line(bench).hears and line(bench).is_heard for bench in benches))
            return await asyncio.wait_for(test(*benches), 2 * SECONDS)
        finally:
            for host in reversed(hosts):
                await host.stop()

    return asyncio.run(run())


def signal(entity_id, due=None):
    return Signal(entity_id, "add", due=due)


@pytest.mark.usefixtures("seldom")
class TestNobodyPolls:
    def test_a_start_at_one_host_runs_at_another_whose_end_is_heard_where_it_is_waited_for(self, database_url):
        async def test(owner, other):
            worker = owner.connect(Worker())
            await other.start("flow", "one")
            waiting = asyncio.create_task(other.service.wait_for_completion("one", payloads=False))
            item = await worker.turn()
            assert not waiting.done()
            await owner.answer(item, finish())
            assert (await waiting).row.status is Status.COMPLETED

        on_hosts(database_url, test)

    def test_a_start_is_heard_where_it_is_waited_for(self, database_url):
        async def test(owner, other):
            worker = owner.connect(Worker())
            waiting = asyncio.create_task(other.service.wait_for_start("one", payloads=False))
            await owner.start("flow", "one")
            await owner.answer(await worker.turn())
            assert (await waiting).row.status is Status.RUNNING

        on_hosts(database_url, test)

    def test_an_activity_that_only_another_host_takes_goes_there_and_its_result_comes_back(self, database_url):
        async def test(owner, other):
            turns, activities = owner.connect(Worker(only(["flow"]))), other.connect(Worker(only(activities=["act"])))
            await owner.start("flow", "one")
            await owner.answer(await turns.turn(), *schedule("act"))
            await other.result(await activities.activity())
            await owner.answer(await turns.turn(), finish())
            assert await owner.status("one") == "COMPLETED"

        on_hosts(database_url, test)

    def test_an_event_and_a_signal_written_at_another_host_arrive(self, database_url):
        async def test(owner, other):
            worker = owner.connect(Worker())
            await other.start("flow", "one")
            await owner.answer(await worker.turn())
            await other.service.raise_event("one", "go", None)
            assert (await worker.turn()).key.instance_id == "one"
            await other.entities.signal(signal("@counter@a"))
            assert (await worker.batch()).key.instance_id == "@counter@a"
            await other.entities.signal(signal("@counter@b", due=other.clock.now() + 50_000))
            assert (await worker.batch()).key.instance_id == "@counter@b"

        on_hosts(database_url, test)

    def test_what_was_ended_at_another_host_is_forgotten(self, postgres_url):
        async def test(owner, other):
            worker = owner.connect(Worker())
            await other.start("flow", "one")
            item = await worker.turn()
            assert await other.service.terminate_now(["one"], None) == []
            memory = owner.runtime.dispatcher._memory
            await owner.until(lambda: (mem := memory.instance(item.key)) is None or mem.turn is None)

        on_hosts(postgres_url, test)


def test_what_nobody_told_of_is_found_by_the_poll(database_url, monkeypatch):
    monkeypatch.setattr(Notices, "tell", lambda *_: None)

    async def test(owner, other):
        worker = owner.connect(Worker())
        await other.start("flow", "one")
        assert (await worker.turn()).key.instance_id == "one"

    on_hosts(database_url, test)


def test_a_host_that_is_alone_tells_nobody(postgres_url, monkeypatch):
    told = []
    monkeypatch.setattr(wakeups.PostgresWakeups, "tell", lambda _, news: told.append(news))

    async def run():
        host = await Host.open(Settings(database=postgres_url, upgrade=True))
        await host.start()
        bench = Bench(host.hubs["default"], HandClock())
        worker = bench.connect(Worker())
        await bench.until(lambda: line(bench).hears)
        await bench.start("flow", "one")
        await bench.answer(await worker.turn(), finish())
        await host.stop()

    asyncio.run(run())
    assert told == []


@pytest.mark.usefixtures("seldom")
def test_a_listener_that_was_cut_off_listens_again_and_looks_for_what_it_missed(postgres_url, monkeypatch):
    monkeypatch.setattr(wakeups, "_FIRST_RETRY_SECONDS", 0.01)

    async def test(owner, other):
        worker = owner.connect(Worker())
        heard = asyncio.Event()
        monkeypatch.setattr(line(owner), "_take", lambda *_: heard.set())  # deaf to what is told
        await other.start("flow", "one")
        await heard.wait()
        monkeypatch.undo()
        monkeypatch.setattr(dispatcher, "_RARE_POLL_SECONDS", SELDOM)
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'durabletask-sql wake-ups'")
        assert (await worker.turn()).key.instance_id == "one"
        await other.until(lambda: line(owner).hears and line(other).hears)
        await other.start("flow", "two")
        assert (await worker.turn()).key.instance_id == "two"

    on_hosts(postgres_url, test)


def test_behind_a_pooler_that_swallows_listen_hosts_poll_and_say_so_once(postgres_url, monkeypatch, caplog):
    monkeypatch.setattr(wakeups, "ECHO_SECONDS", 0.1)
    monkeypatch.setattr(wakeups, "_DEAF_SECONDS", 0.01)
    pooler = Rewriter(postgres_url, b"LISTEN durabletask_1", b"SELECT 1            ")

    async def test(owner, other):
        worker = owner.connect(Worker())
        await owner.until(lambda: line(owner)._told_deaf and line(other)._told_deaf)
        attempts = pooler.rewritten
        await owner.until(lambda: pooler.rewritten >= attempts + 4)  # both have tried again
        await other.start("flow", "one")
        await owner.answer(await worker.turn(), finish())
        assert (await other.service.wait_for_completion("one", payloads=False)).row.status is Status.COMPLETED

    with caplog.at_level(logging.WARNING, "durabletask_sql"):
        on_hosts(pooler.url, test, acquainted=False)
    pooler.close()
    said = [record for record in caplog.records if "transaction pooler" in record.message]
    assert len(said) == 2  # each host once
