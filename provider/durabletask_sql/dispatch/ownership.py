"""Keeping partitions: register, acquire, heartbeat, recover, release. Runs beside the committer loop.

On a database whose time is the one that counts the clock follows it with each heartbeat.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from durabletask_sql.clock import MICROSECONDS, MovableClock
from durabletask_sql.errors import DurableTaskSqlError, PartitionLostError
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.leases import HostIdentity, Leases, OwnedPartition

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.25
_JUMP = MICROSECONDS


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """How long a lease lives without a heartbeat, and whether the clock follows the database's."""

    seconds: float
    follow_database: bool


class Ownership:
    """The lease side of one hub on one host."""

    def __init__(self, leases: Leases, identity: HostIdentity, memory: Memory, clock: MovableClock,
                 settings: LeaseSettings) -> None:
        """Take the parts; nothing is owned before `start`."""
        self._leases = leases
        self._identity = identity
        self._memory = memory
        self._clock = clock
        self._settings = settings

    async def start(self) -> None:
        """Register the host and take every partition that nobody alive owns."""
        asked = self._clock.now()
        self._follow(asked, await self._leases.register(self._identity, self._settings.seconds), first=True)
        await self._acquire()

    async def run(self, on_lost: Callable[[], None]) -> None:
        """Renew the lease each third of it, and look for partitions that became free; `on_lost` when it was lost."""
        while True:
            await asyncio.sleep(self._settings.seconds / 3)
            try:
                asked = self._clock.now()
                self._follow(asked, await self._leases.heartbeat(self._identity.host_id, self._settings.seconds))
                await self._acquire()
            except PartitionLostError as error:
                _log.warning("this host's lease is gone, starting over: %s", error)
                on_lost()
            except DurableTaskSqlError as error:
                _log.warning("the heartbeat failed, trying again: %s", error)

    async def _acquire(self) -> None:
        self._adopt(await self._leases.acquire(self._identity))

    def _adopt(self, owned: Mapping[int, OwnedPartition]) -> None:
        """Follow what the database says is ours."""
        for partition in [partition for partition in self._memory.epochs if partition not in owned]:
            _log.warning("partition %d was taken by another host", partition)
            self._memory.drop(partition)
        self._memory.own({partition: found.epoch for partition, found in owned.items()})

    async def recover(self) -> None:
        """Make sure of what is ours after an unknown outcome: raise the epochs, drop memory, start from the database."""
        while True:
            try:
                epochs = await self._leases.raise_epochs(self._identity.host_id, dict(self._memory.epochs))
                break
            except PartitionLostError:
                epochs = {}
                break
            except DurableTaskSqlError as error:
                _log.warning("cannot raise the epochs yet, trying again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
        for partition in list(self._memory.epochs):
            if partition not in epochs:
                self._memory.drop(partition)
        self._memory.own(epochs)
        self._memory.wants_timers = True

    async def start_over(self) -> None:
        """Forget everything and register again: another host has removed this one."""
        for partition in list(self._memory.epochs):
            self._memory.drop(partition)
        await self.start()

    async def release(self) -> None:
        """Give everything back."""
        await self._leases.release(self._identity.host_id)

    def _follow(self, asked: int, reference: int, *, first: bool = False) -> None:
        """Move the clock as little as the database's answer demands: it was read between `asked` and now."""
        answered = self._clock.now()
        if not self._settings.follow_database or asked <= reference <= answered:
            return
        moved = reference - (asked if reference < asked else answered)
        self._clock.move(moved)
        if abs(moved) > _JUMP and not first:
            _log.warning("the database's clock and this machine's moved apart by %.1f s", moved / MICROSECONDS)
