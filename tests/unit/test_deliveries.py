"""Marks of failed deliveries are kept together, not each in a transaction of its own."""

from __future__ import annotations

import asyncio

from durabletask_sql.clock import SystemClock
from durabletask_sql.dispatch.deliveries import Deliveries
from durabletask_sql.model.deliveries import Mark, RowKey
from durabletask_sql.model.quarantine import Source
from durabletask_sql.partitions.lanes import Lanes
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.suspects import Suspicion


class Store:
    """Notes what is marked."""

    def __init__(self):
        self.marked: asyncio.Queue = asyncio.Queue()

    async def mark(self, _, __, marks):
        self.marked.put_nowait(list(marks))


def test_marks_that_come_one_after_the_other_are_kept_in_one_transaction():
    async def test():
        store = Store()
        memory = Memory(MemoryLimits(), Lanes(lambda _: None), Lanes(lambda _: None))
        deliveries = Deliveries(store, memory, Suspicion(SystemClock()), SystemClock(), 1, lambda: None)
        running = asyncio.create_task(deliveries.run())
        marks = [Mark(RowKey(Source.MESSAGE, 0, seq), 1) for seq in range(5)]
        for mark in marks:
            deliveries.mark([mark])
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert await store.marked.get() == marks
            deliveries.mark(marks[:1])
            assert await store.marked.get() == marks[:1]
        running.cancel()

    asyncio.run(test())
