"""Short work on SQLite runs on the event loop, unless somebody or something is in the way."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading

import pytest

from conformance.world import in_world
from durabletask_sql.storage.dialect import SqliteCompiler
from durabletask_sql.storage.group import GroupAttempt
from durabletask_sql.storage.lanes import NearLane
from durabletask_sql.storage.sqlite import SqliteSession

SLOW_PIECE = 40 * NearLane.SLOW_SECONDS  # enough by itself to make a file slow


@pytest.fixture
def path(tmp_path):
    found = str(tmp_path / "lane.db")
    sqlite3.connect(found).execute("CREATE TABLE one (x)").connection.close()
    return found


class Watch:
    """A stop watch that the test moves."""

    seconds = 0.0

    def now(self):
        return self.seconds


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def slowly(watch):
    """A transaction on a slow file."""
    def work(session):
        watch.seconds += SLOW_PIECE
        return transaction(session)
    return work


@pytest.fixture
def run(path, watch):
    def runner(test):
        async def main():
            lane = NearLane("test", lambda: SqliteSession(path, SqliteCompiler(), writer=True), watch.now)
            try:
                await asyncio.wait_for(test(lane), 20)
            finally:
                await lane.close()

        asyncio.run(main())
    return runner


def transaction(session):
    """An empty transaction; returns the thread that it ran on."""
    session.begin()
    session.commit()
    return threading.get_ident()


def test_short_work_runs_on_the_loop_and_long_work_on_the_thread(run):
    async def test(lane):
        here = threading.get_ident()
        assert await lane.run(transaction, short=True) == here
        assert await lane.run(transaction) != here

    run(test)


def test_work_that_would_wait_for_another_process_goes_to_the_thread(run, path):
    async def test(lane):
        assert await lane.run(transaction, short=True) == threading.get_ident()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(lane.run(transaction, short=True))
        await asyncio.sleep(0)
        assert not waiting.done()  # and the loop runs
        other.execute("COMMIT")
        assert await waiting != threading.get_ident()
        other.close()

    run(test)


def test_the_loop_stays_off_the_session_while_the_thread_has_it_even_if_its_caller_gave_up(run):
    async def test(lane):
        begun, go_on = threading.Event(), threading.Event()

        def long(session):
            session.begin()
            begun.set()
            go_on.wait(10)
            session.commit()

        caller = asyncio.ensure_future(lane.run(long))
        await asyncio.to_thread(begun.wait, 10)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        following = asyncio.ensure_future(lane.run(transaction, short=True))
        await asyncio.sleep(0)
        assert not following.done()
        go_on.set()
        assert await following != threading.get_ident()

    run(test)


def test_work_on_a_slow_file_goes_to_the_thread_and_comes_back_when_the_loop_has_rested(run, watch, slowly):
    async def test(lane):
        here = threading.get_ident()
        assert await lane.run(slowly, short=True) == here
        assert await lane.run(transaction, short=True) != here
        watch.seconds += 0.9 * SLOW_PIECE * NearLane.RESTS
        assert await lane.run(transaction, short=True) != here
        watch.seconds += 0.2 * SLOW_PIECE * NearLane.RESTS
        assert await lane.run(transaction, short=True) == here
        assert await lane.run(transaction, short=True) == here

    run(test)


def test_one_piece_that_is_held_up_does_not_make_a_file_slow_and_many_do(run, watch):
    async def test(lane):
        here = threading.get_ident()

        def held_up(session):
            watch.seconds += 15 * NearLane.SLOW_SECONDS
            return transaction(session)

        assert await lane.run(held_up, short=True) == here
        assert await lane.run(transaction, short=True) == here
        places = [await lane.run(held_up, short=True) for _ in range(20)]
        assert places[-1] != here

    run(test)


def test_a_group_of_few_rows_is_short_and_a_turn_of_many_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(NearLane, "SLOW_SECONDS", math.inf)  # this lane's watch is the machine's
    places = []
    run_trusting = GroupAttempt.run_trusting
    monkeypatch.setattr(GroupAttempt, "run_trusting",
                        lambda attempt: (places.append(threading.get_ident()), run_trusting(attempt))[1])

    async def test(w):
        for count in (1, 1_000):
            row = await w.created(f"with {count}")
            await w.commit(w.turn(row, activities=tuple(w.activity(row, number) for number in range(count))))

    in_world(f"sqlite:///{tmp_path / 'hub.db'}", test)
    assert [place == threading.get_ident() for place in places] == [True, False]


def test_how_long_work_takes_on_the_thread_does_not_keep_the_loop_from_trying_again(run, watch, slowly):
    async def test(lane):
        here = threading.get_ident()
        assert await lane.run(slowly, short=True) == here
        for _ in range(NearLane.RESTS - 1):
            assert await lane.run(slowly, short=True) != here
        watch.seconds += 2 * SLOW_PIECE
        assert await lane.run(transaction, short=True) == here

    run(test)


def test_the_loop_rests_for_all_but_a_small_share_of_the_time_beside_a_file_that_stays_slow(run, watch):
    async def test(lane):
        spent = 0

        def slowly(session):
            watch.seconds += 1.0
            return transaction(session)

        here = threading.get_ident()
        for _ in range(10 * NearLane.RESTS):
            spent += await lane.run(slowly, short=True) == here
        assert 1 <= spent <= watch.seconds / NearLane.RESTS + 1

    run(test)


def test_a_failure_on_the_loop_is_rolled_back(run):
    async def test(lane):
        def fails(session):
            session.begin()
            raise KeyError("one")

        with pytest.raises(KeyError):
            await lane.run(fails, short=True)
        assert await lane.run(transaction, short=True)

    run(test)


def test_only_transactions_that_may_be_lost_go_without_a_sync(path):
    session = SqliteSession(path, SqliteCompiler(), writer=True)
    levels = []
    for durable in (True, False, False, True):
        session.begin(durable=durable)
        levels.append(session._connection.execute("PRAGMA synchronous").fetchone()[0])
        session.commit()
    session.close()
    assert levels == [2, 1, 1, 2]
