"""Waiting for an instance that another host ends."""

from __future__ import annotations

import asyncio

from durabletask_sql.errors import UnavailableError
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.status import Status
from durabletask_sql.service import waiters
from durabletask_sql.service.waiters import Waiters

KEY = InstanceKey(0, "one")


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

        async def look():
            return "ended" if polls > 1 else None

        waiting = Waiters(statuses)
        polling = asyncio.create_task(waiting.run())
        async with asyncio.timeout(10):
            assert await waiting.wait(KEY, look) == "ended"
        polling.cancel()

    asyncio.run(test())
