"""Who waits for an instance: told by this host's own commits, and by a poll for what others committed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.status import Status

_log = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_SECONDS = 1.0
_REST = 9  # times what a poll took


class Waiters:
    """Events by instance. A waiter registers first, then reads, then waits: nothing is missed between."""

    def __init__(self, statuses: Callable[[Sequence[InstanceKey]], Awaitable[dict[InstanceKey, Status]]]) -> None:
        """`statuses` reads the committed statuses of many instances in one statement."""
        self._statuses = statuses
        self._events: dict[InstanceKey, dict[asyncio.Event, None]] = {}  # in the order in which they came
        self._seen: dict[InstanceKey, Status | None] = {}
        self._hinted = asyncio.Event()

    def notify(self, keys: Iterable[InstanceKey]) -> None:
        """Wake those who wait for these instances: their status may have changed."""
        for key in keys:
            for event in self._events.get(key, ()):
                event.set()

    def hint(self) -> None:
        """Note that other processes may have changed something: poll soon."""
        self._hinted.set()

    async def wait(self, key: InstanceKey, look: Callable[[], Awaitable[T | None]]) -> T:
        """Call `look` until it gives something: at once, and whenever the instance may have changed."""
        event = asyncio.Event()
        self._events.setdefault(key, {})[event] = None
        try:
            while True:
                event.clear()
                found = await look()
                if found is not None:
                    return found
                await event.wait()
        finally:
            waiting = self._events[key]
            del waiting[event]
            if not waiting:
                del self._events[key]
                self._seen.pop(key, None)

    async def run(self) -> None:
        """Poll all waited ids, in one statement, for what other processes committed; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._hinted.wait()
            self._hinted.clear()
            keys = list(self._events)
            if keys:
                began = loop.time()
                try:
                    await self.poll(keys)
                except DurableTaskSqlError as error:
                    _log.warning("%d waited instances could not be looked at, trying again: %s", len(keys), error)
                # Processes that are busy hint all the time.
                await asyncio.sleep(min(_REST * (loop.time() - began), _POLL_SECONDS))

    async def poll(self, keys: Sequence[InstanceKey]) -> None:
        """Read the statuses of these instances and wake the waiters of those that changed since the last poll."""
        found = await self._statuses(keys)
        for key in keys:
            status = found.get(key)
            if self._seen.get(key) != status and key in self._events:
                self._seen[key] = status
                self.notify((key,))
