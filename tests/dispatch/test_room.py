"""How much enters memory when there is more than memory may hold."""

from __future__ import annotations

import asyncio

from conformance.world import open_world
from dispatch.bench import Worker, finish, on_bench
from durabletask_sql.clock import MICROSECONDS
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.protocol import events
from durabletask_sql.protocol.framing import frame, iter_events
from durabletask_sql.storage.store import SqlStore

INSTANCES, EVENTS = 20, 100
LIMITS = MemoryLimits(partition_messages=400, share_messages=EVENTS)


async def left_behind(url):
    """Write more for each of many instances than there is room for, round and round, and own nothing any more."""
    store = await SqlStore.open(url, lease_seconds=12, upgrade=True)
    await store.open_hub("default", 1)
    await store.close()
    w = await open_world(url)
    names = [f"i{number}" for number in range(INSTANCES)]
    for name in names:
        await w.created(name)
    sender = await w.created("sender")
    messages = tuple(w.message(name, frame(events.event_raised(1, str(number), None)))
                     for number in range(EVENTS) for name in names)
    await w.commit(w.turn(sender, messages=messages))
    await w.leases.release(w.host.host_id)
    await w.store.close()


def test_a_new_owner_keeps_to_its_room_and_every_instance_gets_on(database_url):
    async def test(bench):
        memory, most = bench.runtime.dispatcher._memory, 0
        worker = bench.connect(Worker(turn_slots=1))
        seen, ended = {}, set()
        while len(ended) < INSTANCES:
            item = await worker.turn()
            name = item.key.instance_id
            most = max(most, memory.messages[0])
            if name == "sender":
                await bench.answer(item, finish())
                continue
            seen.setdefault(name, []).extend(
                event.eventRaised.name for event in iter_events(item.new_events) if event.HasField("eventRaised"))
            done = len(seen[name]) == EVENTS
            await bench.answer(item, *([finish()] if done else []))
            if done:
                ended.add(name)
        assert all(found == [str(number) for number in range(EVENTS)] for found in seen.values())
        assert LIMITS.partition_messages / 2 < most <= 1.5 * LIMITS.partition_messages

    asyncio.run(left_behind(database_url))
    on_bench(database_url, test, LIMITS, partitions=1)


def test_a_scheduled_instance_starts_although_more_events_wait_for_it_than_it_has_room_for(database_url):
    few, count = MemoryLimits(share_messages=3), 10

    async def test(bench):
        worker, seen = bench.connect(Worker()), []
        await bench.start("flow", "one", start_at=bench.clock.now() + MICROSECONDS)
        for number in range(count):
            await bench.service.raise_event("one", str(number), None)
        while len(seen) < count:
            item = await worker.turn()
            found = list(iter_events(item.new_events))
            assert seen or any(event.HasField("executionStarted") for event in found)
            seen += [event.eventRaised.name for event in found if event.HasField("eventRaised")]
            await bench.answer(item, *([finish()] if len(seen) == count else []))
        assert seen == [str(number) for number in range(count)]

    on_bench(database_url, test, few)
