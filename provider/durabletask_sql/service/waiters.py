"""Who waits for an instance: told by this host's own commits, and by a poll for what others committed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from durabletask_sql.errors import DurableTaskSqlError
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.status import Status

_log = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_SECONDS = 1.0
_REST = 9  # times what a poll took


@dataclass(slots=True, eq=False)
class _Waiter:
    """Who waits: `told` is the row as this host has last committed it, unless somebody else may have changed it since."""

    woken: asyncio.Event = field(default_factory=asyncio.Event)
    told: InstanceRow | None = None
    unsure: bool = False

    def hear(self, row: InstanceRow | None) -> None:
        self.told, self.unsure = row, self.unsure or row is None
        self.woken.set()

    def take(self) -> InstanceRow | None:
        told = None if self.unsure else self.told
        self.told, self.unsure = None, False
        self.woken.clear()
        return told


class Waiters:
    """Waiters by instance. A waiter registers first, then reads, then waits: nothing is missed between."""

    def __init__(self, statuses: Callable[[Sequence[InstanceKey]], Awaitable[dict[InstanceKey, Status]]]) -> None:
        """`statuses` reads the committed statuses of many instances in one statement."""
        self._statuses = statuses
        self._waiting: dict[InstanceKey, dict[_Waiter, None]] = {}  # in the order in which they came
        self._seen: dict[InstanceKey, Status | None] = {}
        self._hinted = asyncio.Event()

    def notify(self, keys: Iterable[InstanceKey]) -> None:
        """Wake those who wait for these instances: their status may have changed."""
        for key in keys:
            for waiter in self._waiting.get(key, ()):
                waiter.hear(None)

    def tell(self, row: InstanceRow) -> None:
        """Tell those who wait for an instance what this host has committed of it."""
        if row.key in self._waiting:
            self._seen[row.key] = row.status
            for waiter in self._waiting[row.key]:
                waiter.hear(row)

    def hint(self) -> None:
        """Note that other processes may have changed something: poll soon."""
        self._hinted.set()

    async def wait(self, key: InstanceKey, look: Callable[[InstanceRow | None], Awaitable[T | None]],
                   known: InstanceRow | None = None) -> T:
        """Call `look` until it gives something: at once, and whenever the instance may have changed.

        `look` is given the row as this host has just committed it, `known` at first, None where only the database can
        tell.
        """
        waiter = _Waiter(told=known)
        if known is not None:
            self._seen[key] = known.status
        self._waiting.setdefault(key, {})[waiter] = None
        try:
            while (found := await look(waiter.take())) is None:
                await waiter.woken.wait()
            return found
        finally:
            waiting = self._waiting[key]
            del waiting[waiter]
            if not waiting:
                del self._waiting[key]
                self._seen.pop(key, None)

    async def run(self) -> None:
        """Poll all waited ids, in one statement, for what other processes committed; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._hinted.wait()
            self._hinted.clear()
            keys = list(self._waiting)
            if keys:
                began = loop.time()
                try:
                    await self.poll(keys)
                except DurableTaskSqlError as error:
                    _log.warning("%d waited instances could not be looked at, trying again: %s", len(keys), error)
                # Processes that are busy hint all the time.
                await asyncio.sleep(min(_REST * (loop.time() - began), _POLL_SECONDS))

    async def poll(self, keys: Sequence[InstanceKey]) -> None:
        """Read the statuses of these instances and wake the waiters of those that changed since they were last told.

        Those that were told something meanwhile are looked at again: what was read may be older.
        """
        before = {key: self._seen.get(key) for key in keys}
        found = await self._statuses(keys)
        for key in keys:
            status = found.get(key)
            if self._seen.get(key) != before[key]:
                self._hinted.set()
            elif before[key] != status and key in self._waiting:
                self._seen[key] = status
                self.notify((key,))
