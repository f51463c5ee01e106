"""A host stops whatever its loops are doing at that moment."""

from __future__ import annotations

import asyncio

from durabletask_sql.host import Host
from durabletask_sql.settings import Settings


def test_a_timer_that_comes_due_while_the_host_stops_does_not_keep_it_from_stopping(database_url):
    async def run():
        host = await Host.open(Settings(database=database_url, upgrade=True))
        await host.start()
        dispatcher = host.hubs["default"].dispatcher
        await asyncio.sleep(0)  # its loops have begun to wait
        dispatcher._timers_moved.set()
        async with asyncio.timeout(20):
            await dispatcher.stop()
            await host.store.close()

    asyncio.run(run())
