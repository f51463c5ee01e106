"""Short work on PostgreSQL runs on the event loop, and lets go of it whenever it waits."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest
import uvloop
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select

from durabletask_sql.storage import postgres
from durabletask_sql.storage.database import Database
from durabletask_sql.storage.faults import ConnectionLostError
from durabletask_sql.storage.url import parse_url
from faults.cutting import shut

ONE = Table("one", MetaData(), Column("x", Integer))


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request, postgres_url):
    """Run a test with the committer's lane and another session, on one database and either kind of loop."""
    def runner(test):
        async def main():
            database = Database(parse_url(postgres_url), idle_timeout_ms=10_000, allow_unsafe=False)
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("CREATE TABLE IF NOT EXISTS one (x integer)")
                try:
                    async with asyncio.timeout(30):
                        await test(database.committer, other)
                finally:
                    await database.close()

        request.param(main())
    return runner


def blocked(session):
    """Wait, in a transaction, until the other session lets go of its lock; return the thread that this runs on."""
    session.begin(lock_timeout_ms=20_000)
    session.execute(select(func.pg_advisory_xact_lock(7)))
    session.execute(insert(ONE).values(x=1))
    session.commit()
    return threading.get_ident()


def count(other):
    return other.execute("SELECT count(*) FROM one").fetchone()[0]


async def until_blocked(other):
    """Wait, while the loop runs, until somebody waits for the lock."""
    while not other.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall():
        await asyncio.sleep(0.005)


async def begun(lane, other, *, short=True):
    """A call whose work has begun, and waits for the lock; `let_go` ends that."""
    other.execute("SELECT pg_advisory_lock(7)")
    call = asyncio.create_task(lane.run(blocked, short=short))
    await until_blocked(other)
    return call


def let_go(other):
    other.execute("SELECT pg_advisory_unlock_all()")


@pytest.mark.parametrize("short", [True, False])
def test_the_loop_goes_on_while_work_waits_wherever_it_runs(run, short):
    async def test(lane, other):
        waiting = await begun(lane, other, short=short)
        assert not waiting.done()
        let_go(other)
        assert (await waiting == threading.get_ident()) is short
        assert count(other) == 1

    run(test)


def test_one_piece_of_work_at_a_time_has_the_session_and_they_keep_their_order(run):
    async def test(lane, other):
        other.execute("SELECT pg_advisory_lock(7)")
        order = []

        def noted(name):
            def work(session):
                order.append(f"{name} begins")
                blocked(session)
                order.append(f"{name} ends")
            return work

        calls = [asyncio.create_task(lane.run(noted(name), short=short))
                 for name, short in (("a", True), ("b", False), ("c", True))]
        await until_blocked(other)
        assert order == ["a begins"]
        let_go(other)
        await asyncio.gather(*calls)
        assert order == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]

    run(test)


def test_what_has_begun_goes_on_to_its_end_although_its_caller_gives_up(run):
    async def test(lane, other):
        caller = await begun(lane, other)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        following = asyncio.create_task(lane.run(blocked, short=True))
        await asyncio.sleep(0)
        let_go(other)
        await following
        assert count(other) == 2

    run(test)


def test_closing_waits_for_what_has_begun(run):
    async def test(lane, other):
        caller = await begun(lane, other)
        closing = asyncio.create_task(lane.close())
        await asyncio.sleep(0)
        assert not closing.done()
        let_go(other)
        await closing
        assert caller.done()
        assert count(other) == 1

    run(test)


def test_a_lost_connection_is_made_again_without_keeping_the_loop(run, monkeypatch):
    threads = []
    connect = postgres.connect

    def watched(*given, **named):
        threads.append(threading.get_ident())
        return connect(*given, **named)

    monkeypatch.setattr(postgres, "connect", watched)

    async def test(lane, other):
        await lane.run(blocked, short=True)
        session, = lane._sessions

        def cut(session):
            session.begin()
            shut(session)
            session.execute(insert(ONE).values(x=2))

        with pytest.raises(ConnectionLostError):
            await lane.run(cut, short=True)
        await lane.run(blocked, short=True)
        assert lane._sessions == [session]
        assert count(other) == 2
        assert len(threads) == 2
        assert threading.get_ident() not in threads

    run(test)


def test_an_error_rolls_back_and_reaches_the_caller(run):
    async def test(lane, other):
        def fails(session):
            session.begin()
            session.execute(insert(ONE).values(x=3))
            raise KeyError("one")

        with pytest.raises(KeyError):
            await lane.run(fails, short=True)
        await lane.run(blocked, short=True)
        assert count(other) == 1

    run(test)


def terminate(other):
    """End all sessions but this one."""
    other.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                  "AND datname = current_database()")


def test_a_connection_that_ends_while_nobody_waits_is_made_again(run):
    async def test(lane, other):
        await lane.run(blocked, short=True)
        terminate(other)
        with pytest.raises(ConnectionLostError):
            await lane.run(blocked, short=True)
        await lane.run(blocked, short=True)
        assert count(other) == 2

    run(test)


@pytest.mark.parametrize("short", [True, False])
def test_a_new_connection_under_the_number_of_a_lost_one_is_heard(run, short):
    numbers = []

    def loses(session):
        numbers.append(session._pipeline._pq.socket)
        session.begin()
        shut(session)
        session.execute(insert(ONE).values(x=2))

    async def test(lane, other):
        for _ in range(5):
            await lane.run(blocked, short=True)
            with pytest.raises(ConnectionLostError):
                await lane.run(loses, short=short)
        await lane.run(blocked, short=True)
        assert count(other) == 6
        assert len(set(numbers)) < 5

    run(test)


def test_a_call_given_up_before_its_turn_is_not_begun(run):
    async def test(lane, other):
        first = await begun(lane, other)
        second = asyncio.create_task(lane.run(blocked, short=True))
        await asyncio.sleep(0)
        second.cancel()
        let_go(other)
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
        await lane.run(blocked, short=True)
        assert count(other) == 2

    run(test)


@pytest.mark.parametrize("short", [True, False])
def test_a_lane_that_is_closed_refuses_work(run, short):
    async def test(lane, _):
        await lane.run(blocked, short=True)
        await lane.close()
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await lane.run(blocked, short=short)

    run(test)
