"""The dispatcher of one task hub: its memory, owner loop, board, lease and the timers that drive them."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from durabletask_sql.clock import MICROSECONDS, MovableClock
from durabletask_sql.dispatch.board import Board
from durabletask_sql.dispatch.deliveries import Deliveries
from durabletask_sql.dispatch.entities import EntitySeats
from durabletask_sql.dispatch.loops import Loops
from durabletask_sql.dispatch.notices import Notices
from durabletask_sql.dispatch.owner import PACK_AHEAD_BYTES, TIMER_WINDOW, Owner, OwnerEvents
from durabletask_sql.dispatch.ownership import Ownership, OwnershipEvents
from durabletask_sql.dispatch.parking import Parking
from durabletask_sql.dispatch.ports import BoardPorts
from durabletask_sql.dispatch.turns import TurnSeats
from durabletask_sql.dispatch.upkeep import Upkeep
from durabletask_sql.errors import DurableTaskSqlError, LoopEndedError
from durabletask_sql.model.checkpoints import (
    Item,
    NewChild,
    OrchestrationStart,
    Outcome,
    OutcomeKind,
    TurnCheckpoint,
)
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.partitions.lanes import Lanes
from durabletask_sql.partitions.limits import MemoryLimits
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.speculation import Speculation
from durabletask_sql.partitions.suspects import Suspicion
from durabletask_sql.ports.committer import Committer
from durabletask_sql.ports.deliveries import DeliveryStore
from durabletask_sql.ports.hubs import TaskHub
from durabletask_sql.ports.instances import Creation
from durabletask_sql.ports.leases import HostIdentity, Leases
from durabletask_sql.ports.wakeups import News, Wakeups
from durabletask_sql.turn.intake import TurnLimits

_log = logging.getLogger(__name__)

_FIRST_POLL_SECONDS = 0.02
_LAST_POLL_SECONDS = 1.0
_RARE_POLL_SECONDS = 4.0  # while other hosts tell what they write
_WINDOW_REFRESH_SECONDS = 30.0
_IDLE_CHECK_SECONDS = 0.02
_TIMER_GRACE_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """What is set for a host's work. `lease_seconds`: how long it may be silent before others take over."""

    lease_seconds: float
    memory: MemoryLimits = MemoryLimits()
    turns: TurnLimits = TurnLimits()


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of what in this process.

    `committed` of each committed turn, `heard` of other hosts' news, `failed` of a loop that has ended by a bug: nothing
    goes on from there, and the host should stop.
    """

    committed: Callable[[TurnCheckpoint], None]
    heard: Callable[[News], None]
    failed: Callable[[LoopEndedError], None]


class Dispatcher:
    """Everything that runs on a host for one task hub."""

    def __init__(self, hub: TaskHub, identity: HostIdentity, committer: Committer, leases: Leases, kept: DeliveryStore,
                 wakeups: Wakeups, clock: MovableClock, settings: DispatcherSettings, listeners: Listeners) -> None:
        """Wire the parts."""
        self._committer = committer
        self._wakeups = wakeups
        self._notices = Notices(wakeups)
        self._listeners = listeners
        self._poll_now = asyncio.Event()
        self._woke = False  # since the last poll: rows that it finds may be those that this host has just written
        self._clock = clock
        self._settings = settings
        self._host_id = identity.host_id
        suspicion = self._suspicion = Suspicion(clock)
        seats, entity_seats = TurnSeats(suspicion), EntitySeats(suspicion)
        self._memory = Memory(settings.memory, Lanes(seats.group_of), Lanes(entity_seats.group_of))
        self._timers_moved = asyncio.Event()
        self._ownership = Ownership(leases, identity, self._memory, clock, settings.lease_seconds, OwnershipEvents(
            self._kick, self._forget_activities, self._moved, self._be_careful, self._timers_moved.set))
        self._deliveries = Deliveries(kept, self._memory, suspicion, clock, identity.host_id, self._pump)
        self._window_read = clock.now()
        self._awaited: int | None = None  # the due time that the timers' loop waits for
        self.loops = Loops(hub.name, listeners.failed)
        speculation = Speculation(self._memory)
        self.board = Board(hub, identity.host_id, self._memory, speculation, seats, entity_seats, clock, BoardPorts(
            self._submit, committer.activity, self._kick, self._found_takers, self._pump,
            lambda: self._ownership.is_alive, lambda: self._ownership.peers, self._may_run_ahead,
            self._deliveries.mark, self._deliveries.deliver), settings.turns)
        self._parking = Parking(committer, self._memory, seats, entity_seats, clock, identity.host_id,
                                self._lose_ownership)
        self._owner = Owner(committer, self._memory, speculation, clock, identity.host_id, OwnerEvents(
            self._ready, self.board.add_activities, self.board.activity_room, self.board.activity_claims,
            listeners.committed, self._notices.tell_of, self._ownership.recover,
            lambda: self.board.outstanding), self._parking)
        self.upkeep = Upkeep(committer, self.board, clock, identity.host_id, self._moved)

    def _submit(self, item: Item, provisional: int | None) -> "asyncio.Future[Outcome]":
        return self._owner.submit(item, provisional)

    def _may_run_ahead(self) -> bool:
        # A careful host has nothing out whose rows it cannot name.
        return not self._suspicion.careful and not self._owner.is_busy

    def _be_careful(self) -> None:
        self._deliveries.be_careful()

    def _kick(self) -> None:
        self._owner.kick()

    def _found_takers(self) -> None:
        self._owner.unclaimed_activities = True
        self._parking.look_through()

    def _lose_ownership(self) -> None:
        self._owner.lose_ownership()

    def _forget_activities(self) -> None:
        self.board.forget_activities()

    def _moved(self) -> None:
        """Leases have changed, or tasks were given back: others should look, and so does this host."""
        self._notices.tell(News(anything=True))
        self._poll_now.set()

    def _pump(self) -> None:
        self.board.pump()

    def wake(self, keys: Iterable[InstanceKey]) -> None:
        """Somebody in this process wrote rows for these instances: claim them now."""
        keys = tuple(keys)
        self._woke = True
        self._memory.wake(keys)
        self._owner.kick()
        self._notices.tell(News(work=frozenset(key for key in keys if key.partition not in self._memory.epochs)))

    async def start_instance(self, creation: Creation) -> bool:
        """Create an instance in the next group; False, with nothing changed, where that is not for this host to do.

        It then needs no load: it is in memory as it was committed.
        """
        key = creation.row.key
        if (creation.event is not None or creation.row.scheduled_at is not None
                or len(creation.start.events) >= PACK_AHEAD_BYTES
                or self._memory.find(key) is not None or not self._memory.may_enter(key, 1, 0)):
            return False
        start = OrchestrationStart(NewChild(creation.row, creation.input, creation.start, refusal=None))
        outcome = await self.board.start(start)
        return outcome.kind is OutcomeKind.COMMITTED

    def known(self, key: InstanceKey) -> InstanceRow | None:
        """Return the row of an instance that is in memory and not to be read afresh, None if it is not."""
        mem = self._memory.instance(key)
        return mem.row if mem is not None and mem.known and not mem.stale else None

    def forget(self, keys: Iterable[InstanceKey]) -> None:
        """Somebody in this process ended or replaced these instances: what is out of them is stale from now on."""
        keys = frozenset(keys)
        for key in keys:
            self._memory.lose(key)
        self._owner.kick()
        self._notices.tell(News(changed=keys))

    def start_over(self) -> None:
        """The hub was emptied: nothing that is in memory, or out at workers, counts any more."""
        self.board.forget_activities()
        self._owner.lose_ownership()

    def wake_timers(self, key: InstanceKey) -> None:
        """Somebody in this process wrote delayed rows for this entity: take those that come due soon into the window."""
        if key.partition in self._memory.epochs:
            self._memory.wants_timers = True
            self._owner.kick()
        else:
            self._notices.tell(News(delayed=frozenset((key.partition,))))

    def _hear(self, news: News) -> None:
        """Another host, or another process on the same file, has written something: look there."""
        memory = self._memory
        memory.wake(news.work)
        memory.scan(news.scan)
        memory.wants_timers |= bool(news.delayed & memory.epochs.keys())
        for key in news.changed:
            memory.lose(key)  # its owner is told of it only when somebody else has ended or replaced it
        self._owner.unclaimed_activities |= news.tasks
        if news.anything:
            self._poll_now.set()
        self._owner.kick()
        self._listeners.heard(news)

    async def start(self) -> None:
        """Take the partitions and begin to work."""
        await self._ownership.start()
        for name, work in (("commits and loads", self._owner.run()), ("timers", self._run_timers()),
                           ("poll", self._run_poll()), ("leases", self._ownership.run()),
                           ("end of the lease", self._ownership.watch()), ("upkeep", self.upkeep.run()),
                           ("notices", self._notices.run()), ("wake-ups", self._wakeups.run(self._hear)),
                           ("deliveries", self._deliveries.run())):
            self.loops.start(name, work)

    async def drain(self, seconds: float) -> None:
        """Hand out nothing more, leave to others what waits, and wait for what is out, at most so long."""
        self.board.stop_offering()
        self._ownership.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.upkeep.look()
                # The parts have to be idle at the same moment, and neither knows of the other.
                while not (self.board.is_idle and self._owner.is_idle and self._ownership.has_left):
                    await asyncio.sleep(_IDLE_CHECK_SECONDS)

    async def stop(self) -> None:
        """Stop all loops and give the partitions back; after a bug, as one who is lost."""
        await self.loops.stop()
        try:
            await (self._ownership.give_up() if self.loops.have_failed else self._ownership.release())
        except DurableTaskSqlError as error:
            _log.warning("the partitions could not be released; their lease will run out: %s", error)

    def _ready(self) -> None:
        due = self._memory.window.next_due()
        if due is not None and (self._awaited is None or due < self._awaited or due <= self._clock.now()):
            self._timers_moved.set()
        self.board.pump_soon()

    async def _run_timers(self) -> None:
        """Take up timers as they come due, and refresh the window long before its end."""
        while True:
            self._timers_moved.clear()
            if not 0 <= self._clock.now() - self._window_read < _WINDOW_REFRESH_SECONDS * MICROSECONDS:
                self._window_read = self._clock.now()
                self._memory.wants_timers = True
                self._owner.kick()
            if self._memory.take_due(self._clock.now()):
                self._owner.kick()
            due = self._awaited = self._memory.window.next_due()
            seconds = _WINDOW_REFRESH_SECONDS
            if due is not None:
                # Rounded up by a hair: waking before the due time would only mean to wait again.
                seconds = min(seconds, max(0.0, (due - self._clock.now()) / MICROSECONDS) + _TIMER_GRACE_SECONDS)
            # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._timers_moved.wait()

    async def _run_poll(self) -> None:
        """Look for what nobody told of: at once where something may have been missed, else with a back-off."""
        delay, entered = _FIRST_POLL_SECONDS, 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._poll_now.wait()
            self._poll_now.clear()
            busy, self._woke = self._woke, False
            found = await self._poll()
            progressed, entered = self._memory.entered != entered, self._memory.entered
            rare = self._wakeups.hears and not self._memory.ceilings.stuck()
            longest = _RARE_POLL_SECONDS if rare else _LAST_POLL_SECONDS
            delay = _FIRST_POLL_SECONDS if found and progressed and not busy else min(2 * delay, longest)

    async def _poll(self) -> bool:
        try:
            pending = await self._committer.poll(self._host_id, self._clock.now() + TIMER_WINDOW)
        except DurableTaskSqlError as error:
            _log.warning("the poll for messages of other processes failed, trying again: %s", error)
            return False
        if pending.undone:
            _log.warning("the database has crashed, so that claims which were not durable may be gone: reloading")
            self._lose_ownership()
        self._memory.scan(pending.queue)
        self._memory.wake(self._memory.ceilings.stuck())
        self._memory.wants_timers |= bool(pending.timers)
        self._owner.unclaimed_activities |= pending.activities
        if pending.leases:
            self._ownership.nudge()
        self._parking.poll()
        self._owner.kick()
        return bool(pending.queue or pending.timers)
