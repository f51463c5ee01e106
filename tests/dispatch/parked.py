"""A memory that is soon full, and what is parked then."""

from __future__ import annotations

from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.storage.parking import READ_MESSAGES

SMALL = MemoryLimits(partition_messages=20, share_messages=5)


async def parked(bench, statement=READ_MESSAGES):
    """The ids of the instances that have parked rows, a row each."""
    database = bench.runtime.dispatcher._committer._database
    rows = await database.readers.run(lambda session: session.ask(
        statement, hub=bench.runtime.hub.hub_id, partition=0, after_at=0, after=0, room=10_000))
    return [row[2] for row in rows]


async def until_parked(bench, count, statement=READ_MESSAGES):
    async def enough():
        return len(await parked(bench, statement)) >= count
    await bench.until_true(enough)
