"""A client with only the database's URL: `python sender.py URL PREFIX COUNT INSTANCES...` writes past the owner."""

from __future__ import annotations

import asyncio
import sys

from durabletask_sql.ids import partition_of
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import MessageKind, NewMessage
from durabletask_sql.protocol import events
from durabletask_sql.protocol.framing import frame
from durabletask_sql.storage.store import SqlStore


async def send(url: str, prefix: str, count: int, instances: list[str]) -> None:
    """Send numbered events, each after the one before was acknowledged."""
    store = await SqlStore.open(url, lease_seconds=12)
    hub = await store.open_hub("default", None)
    port = store.instances(hub)
    for number in range(count):
        target = instances[number % len(instances)]
        event = events.event_raised(1, prefix, str(number))
        key = InstanceKey(partition_of(target, hub.partition_count), target)
        sent = await port.send(NewMessage(key, None, MessageKind.EVENT, frame(event)))
        assert sent.woken, target
    await store.close()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
