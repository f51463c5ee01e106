"""Keeping partitions: register, heartbeat, balance, hand over, recover, release. Runs beside the committer loop.

What the host believes to own never outlives its lease: the time of its last heartbeat is taken before it was sent, and
once that is a lease ago, by the clock of this event loop, everything is dropped, whatever the database may say later.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from durabletask_sql.clock import MICROSECONDS, MovableClock
from durabletask_sql.errors import DurableTaskSqlError, PartitionLostError
from durabletask_sql.partitions.balance import Moves, decide, heirs
from durabletask_sql.partitions.liveness import Liveness, Verdict
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.leases import HostIdentity, Lease, Leases, OwnedPartition, View

_log = logging.getLogger(__name__)

_LONGEST_BEAT_SECONDS = 4.0
_LONGEST_DRAIN_SECONDS = 3.0
_RETRY_SECONDS = 0.25
_UNSETTLED_SECONDS = 1.0  # between looks while somebody dead has something, or a partition drains
_AWAITING_SECONDS = 0.1  # while a partition is about to be handed to this host, or was just taken by another
_DRAIN_CHECK_SECONDS = 0.05
_HAIR_SECONDS = 0.02
_JUMP = MICROSECONDS


@dataclass(slots=True)
class Drain:
    """A partition on its way to another host; what is out of it is waited for until then."""

    heir: int
    until: float


@dataclass(frozen=True, slots=True)
class OwnershipEvents:
    """Whom ownership tells.

    `changed`: there is more to do, or one may work again. `removed`: another host has given this one up for dead,
    and what it had claimed away. `moved`: leases have changed, or tasks were freed. `after_loss`: the last owner of a
    partition that is about to be ours was lost. `clock_moved`: it is another time than was thought.
    """

    changed: Callable[[], None]
    removed: Callable[[], None]
    moved: Callable[[], None]
    after_loss: Callable[[], None]
    clock_moved: Callable[[], None]


class Ownership:
    """The lease side of one hub on one host."""

    def __init__(self, leases: Leases, identity: HostIdentity, memory: Memory, clock: MovableClock,
                 lease_seconds: float, events: OwnershipEvents) -> None:
        """Take the parts; nothing is owned before `start`. A lease lives `lease_seconds` without a heartbeat."""
        self._leases = leases
        self._identity = identity
        self._memory = memory
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._events = events
        self._lock = asyncio.Lock()  # one change of ownership at a time, from its reading to its end
        self._nudged = asyncio.Event()
        self._beat = min(lease_seconds / 3, _LONGEST_BEAT_SECONDS)
        self._liveness = Liveness()
        self._renewed: float | None = None
        self._registered = False
        self._leaving = False
        self._looked = self._next_look = 0.0
        self._drains: dict[int, Drain] = {}
        self._left: dict[int, int] = {}
        self.peers = 0

    @property
    def is_alive(self) -> bool:
        """Whether the lease holds for all that this host knows. Without it nothing may be offered."""
        return self._renewed is not None and self._now() < self._renewed + self._lease_seconds

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def start(self) -> None:
        """Register the host and take its share of the partitions."""
        async with self._lock:
            await self._renew()
            await self._settle()

    async def run(self) -> None:
        """Renew the lease in time, and move partitions to and fro, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_CHECK_SECONDS if self._drains else self._next_look - self._now()):
                    await self._nudged.wait()
            if self._nudged.is_set():
                self._nudged.clear()
                await asyncio.sleep(self._looked + _AWAITING_SECONDS - self._now())
                self._next_look = 0.0
            try:
                async with self._lock:
                    await self._step()
            except PartitionLostError as error:
                _log.warning("this host's lease is gone, starting over: %s", error)
                self._registered = False
                self._forget()
                self._events.removed()
            except DurableTaskSqlError as error:
                _log.warning("the lease could not be looked after, trying again: %s", error)
                self._next_look = self._now() + _RETRY_SECONDS

    async def watch(self) -> None:
        """Drop everything as soon as the lease has run out without a heartbeat, until cancelled."""
        while True:
            left = 0.0 if self._renewed is None else self._renewed + self._lease_seconds - self._now()
            if left <= 0.0 and self._memory.epochs:
                _log.warning("no heartbeat succeeded for %.1f s: the lease has run out, everything is dropped",
                             self._lease_seconds)
                self._forget()
            await asyncio.sleep(left if left > 0.0 else _RETRY_SECONDS)

    def nudge(self) -> None:
        """Look soon: partitions are free, or asked for."""
        self._nudged.set()

    def leave(self) -> None:
        """Hand everything over, to others as far as there are any: the host is about to stop."""
        self._leaving = True
        self.nudge()

    @property
    def has_left(self) -> bool:
        """Whether everything is handed over that somebody else could have."""
        return self._leaving and not (self.peers and self._memory.epochs)

    async def recover(self) -> None:
        """Make sure of what is ours after an unknown outcome: raise the epochs, drop memory, start from the database."""
        while True:
            try:
                async with self._lock:
                    await self._raise_all()
            except DurableTaskSqlError as error:
                _log.warning("cannot raise the epochs yet, trying again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _raise_all(self) -> None:
        memory = self._memory
        epochs = await self._leases.raise_epochs(self._identity.host_id, {**self._left, **memory.epochs})
        for partition in [partition for partition in memory.epochs if partition not in epochs]:
            self._drop(partition)
        memory.own(epochs)

    async def release(self) -> None:
        """Give everything back."""
        await self._leases.release(self._identity.host_id)

    async def give_up(self) -> None:
        """End the lease now. Others take over at once, and carefully: what this host did may have been its end."""
        await self._leases.heartbeat(self._identity.host_id, 0.0)

    # One step

    async def _step(self) -> None:
        now = self._now()
        if self._renewed is None or not self._registered or now >= self._renewed + self._beat:
            await self._renew()
        if now >= self._next_look:
            await self._settle()
        await self._hand_over()

    async def _renew(self) -> None:
        began, asked, was_alive = self._now(), self._clock.now(), self.is_alive
        host, seconds, first = self._identity.host_id, self._lease_seconds, not self._registered
        self._registered = True  # also when that ends in doubt: the next heartbeat tells
        reference = await (self._leases.register(self._identity, seconds) if first
                           else self._leases.heartbeat(host, seconds))
        self._follow(asked, reference, first=first)
        self._renewed = began
        if not was_alive:
            self._events.changed()

    async def _settle(self) -> None:
        """Follow what the database says, and do this host's part in what should move."""
        asked = self._now()
        view = await self._leases.look(self._identity)
        found = self._liveness.judge(self._identity.host_id, view, asked, self._now())
        if not self.is_alive:
            return
        self.peers = sum(host != self._identity.host_id for host in found.live)
        await self._follow_owned(view)
        moves = self._decide(found.live, view.leases)
        taken: Mapping[int, OwnedPartition] = {}
        if moves.acquire or found.dead:
            taken = await self._leases.acquire(self._identity, moves.acquire, found.dead)
            self._adopt(taken)
            self._events.moved()  # the tasks of the dead are free as well
        if moves.ask:
            await self._leases.ask(self._identity.host_id, moves.ask)
            self._events.moved()
        self._drain(moves.hand_over)
        self._looked = self._now()
        self._next_look = self._looked + self._until_next_look(found, moves, missed=len(taken) < len(moves.acquire))

    def _decide(self, live: Collection[int], leases: Sequence[Lease]) -> Moves:
        host = self._identity.host_id
        if self._leaving:
            return Moves(hand_over=heirs(host, live, leases))
        return decide(host, live, leases)

    def _until_next_look(self, found: Verdict, moves: Moves, *, missed: bool) -> float:
        """Look at the next heartbeat, or as soon as another host may have died; more often while something moves."""
        if missed or moves.awaits or moves.ask:
            return _AWAITING_SECONDS
        others = [left for host, left in found.live.items() if host != self._identity.host_id]
        until = min((self._beat, *(left + _HAIR_SECONDS for left in others)))
        return min(until, _UNSETTLED_SECONDS) if self._drains or found.dead else until

    async def _follow_owned(self, view: View) -> None:
        """Drop what went, take up what is ours: under a new epoch if memory has dropped it under the present one."""
        memory, host = self._memory, self._identity.host_id
        mine = {lease.partition: lease.epoch for lease in view.leases if lease.owner == host}
        for partition in [partition for partition in memory.epochs if partition not in mine]:
            _log.warning("partition %d was taken by another host", partition)
            self._drop(partition)
        dropped = {partition: epoch for partition, epoch in mine.items()
                   if partition not in memory.epochs and self._left.get(partition) == epoch}
        if dropped:
            mine = dict(await self._leases.raise_epochs(host, dropped))
        self._adopt({partition: OwnedPartition(epoch, after_loss=partition not in {**memory.epochs, **self._left})
                     for partition, epoch in mine.items() if memory.epochs.get(partition) != epoch})

    def _adopt(self, owned: Mapping[int, OwnedPartition]) -> None:
        """Take up partitions that are ours now."""
        if any(found.after_loss for found in owned.values()):
            self._events.after_loss()
        if owned:
            self._memory.own({partition: found.epoch for partition, found in owned.items()})
            self._events.changed()

    def _drop(self, partition: int) -> None:
        self._left[partition] = self._memory.epochs[partition]
        self._memory.drop(partition)

    def _forget(self) -> None:
        self._drains.clear()
        for partition in list(self._memory.epochs):
            self._drop(partition)

    # Handing over

    def _drain(self, wanted: Mapping[int, int]) -> None:
        """Begin to drain what is wanted elsewhere; go on with what is not wanted any more."""
        draining = self._memory.draining
        for partition in self._drains.keys() - wanted.keys():
            del self._drains[partition]
            draining.end(partition)
            self._events.changed()
        for partition in wanted.keys() & self._memory.epochs.keys():
            if partition not in draining.partitions:
                draining.begin(partition)
            until = self._now() + min(self._lease_seconds / 4, _LONGEST_DRAIN_SECONDS)
            self._drains.setdefault(partition, Drain(wanted[partition], until)).heir = wanted[partition]

    async def _hand_over(self) -> None:
        """Hand over what is quiet, or was not in time: what is still out of it then is lost and runs elsewhere."""
        quiet, now = self._memory.draining.quiet(), self._now()
        done = {partition: drain.heir for partition, drain in self._drains.items()
                if partition in quiet or now >= drain.until}
        epochs = {partition: epoch for partition, epoch in self._memory.epochs.items() if partition in done}
        for partition in done:
            del self._drains[partition]
        for partition in epochs:
            self._drop(partition)
        if epochs:
            _log.info("handing over %d partitions", len(epochs))
            await self._leases.hand_over(self._identity.host_id, epochs, done)
            self._events.moved()

    def _follow(self, asked: int, reference: int, *, first: bool) -> None:
        """Move the clock as little as the database's answer demands: it was read between `asked` and now."""
        answered = self._clock.now()
        if asked <= reference <= answered:
            return
        moved = reference - (asked if reference < asked else answered)
        self._clock.move(moved)
        self._events.clock_moved()
        if abs(moved) > _JUMP and not first:
            _log.warning("the database's clock and this machine's moved apart by %.1f s", moved / MICROSECONDS)
