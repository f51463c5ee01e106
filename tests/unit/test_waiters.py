"""Waiting for an instance that another host ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from durabletask_sql.errors import UnavailableError
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.status import Status
from durabletask_sql.service import waiters
from durabletask_sql.service.waiters import Waiters

KEY = InstanceKey(0, "one")
RUNNING = InstanceRow(*KEY, "execution", 0, 1, "flow", None, Status.RUNNING, 0, 0)
ENDED = replace(RUNNING, status=Status.COMPLETED)


def test_a_poll_that_fails_is_not_the_last_one(monkeypatch):
    monkeypatch.setattr(waiters, "_POLL_SECONDS", 0.0)

    async def test():
        polls = 0

        async def statuses(_):
            nonlocal polls
            polls += 1
            if polls == 1:
                raise UnavailableError("the database cannot be reached")
            return {KEY: Status.COMPLETED}

        async def look(_):
            return "ended" if polls > 1 else None

        waiting = Waiters(statuses)
        polling = asyncio.create_task(waiting.run())
        async with asyncio.timeout(10):
            assert await waiting.wait(KEY, look) == "ended"
        polling.cancel()

    asyncio.run(test())


async def no_statuses(_):
    return {}


def heard(*calls):
    """What a waiter is given to look at when these happen before it looks a second time."""
    async def test():
        waiting, given = Waiters(no_statuses), []

        async def look(told):
            given.append(told)
            if len(given) == 1:
                for call, argument in calls:
                    getattr(waiting, call)(argument)
                return None
            return "done"

        async with asyncio.timeout(10):
            await waiting.wait(KEY, look, RUNNING)
        return given

    return asyncio.run(test())


def test_a_waiter_is_given_the_last_row_that_this_host_committed():
    assert heard(("tell", RUNNING), ("tell", ENDED)) == [RUNNING, ENDED]


def test_what_somebody_else_may_have_changed_is_for_the_database_to_tell():
    assert heard(("notify", [KEY])) == [RUNNING, None]
    assert heard(("notify", [KEY]), ("tell", RUNNING)) == [RUNNING, None]
    assert heard(("tell", RUNNING), ("notify", [KEY])) == [RUNNING, None]


@pytest.mark.parametrize(("committed", "wakes"), [(Status.RUNNING, False), (Status.COMPLETED, True)])
def test_a_poll_wakes_only_for_what_a_waiter_has_not_been_told(committed, wakes):
    async def test():
        async def statuses(_):
            return {KEY: committed}

        async def look(told):
            return "asked" if told is None else None

        waiting = Waiters(statuses)
        waiter = asyncio.create_task(waiting.wait(KEY, look, replace(RUNNING, status=Status.PENDING)))
        await asyncio.sleep(0)
        waiting.tell(RUNNING)
        await waiting.poll([KEY])
        for _ in range(3):
            await asyncio.sleep(0)
        assert waiter.done() is wakes
        waiter.cancel()

    asyncio.run(test())


def test_a_poll_that_was_overtaken_by_what_a_waiter_was_told_wakes_nobody():
    async def test():
        given = []

        async def statuses(_):
            waiting.tell(ENDED)  # committed while the poll reads what was there before
            return {KEY: Status.RUNNING}

        async def look(told):
            given.append(told)
            if len(given) == 1:
                await waiting.poll([KEY])
                return None
            return "done"

        waiting = Waiters(statuses)
        await waiting.wait(KEY, look, RUNNING)
        return given

    assert asyncio.run(test()) == [RUNNING, ENDED]
