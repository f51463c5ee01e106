"""Parking what nobody takes when memory runs short, and taking parked rows up again. A part of the owner's loop.

Both are transactions of the owner's committer, one after the other with its groups and loads. Looking through what is
parked begins when a worker that takes something new connects and when partitions change their owner; what may run then
becomes rows that nobody holds, which the ordinary scan finds.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from durabletask_sql.clock import Clock
from durabletask_sql.dispatch.entities import EntitySeats
from durabletask_sql.dispatch.executors import Seats
from durabletask_sql.dispatch.turns import TurnSeats
from durabletask_sql.errors import OutcomeUnknownError
from durabletask_sql.ids import entity_name, is_entity
from durabletask_sql.partitions.entity import EntityMemory
from durabletask_sql.partitions.eviction import AnyMemory
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.parking import ParkingLot
from durabletask_sql.ports.committer import Committer
from durabletask_sql.ports.parking import ParkedPlace, ParkedRow
from durabletask_sql.ports.work import Needs

_log = logging.getLogger(__name__)

_INSTANCES_AT_ONCE = 200
_ROWS_AT_ONCE = 500


class _Class(NamedTuple):
    """What decides who takes an instance or an entity."""

    seats: Seats[Any]
    name: str
    version: str | None
    needs: Needs

    @property
    def is_taken(self) -> bool:
        """Whether somebody takes it."""
        return bool(self.seats.takers_of(self.name, self.version, self.needs))


class Parking:
    """Parking for the partitions that this host owns."""

    def __init__(self, committer: Committer, memory: Memory, seats: TurnSeats, entity_seats: EntitySeats, clock: Clock,
                 host_id: int, lose_ownership: Callable[[], None]) -> None:
        """Both kinds of seats tell who takes what."""
        self._committer = committer
        self._memory = memory
        self._lot = ParkingLot(memory)
        self._seats = seats
        self._entity_seats = entity_seats
        self._clock = clock
        self._host_id = host_id
        self._lose_ownership = lose_ownership
        self._places: deque[ParkedPlace] = deque()
        self._again = False
        self._may_be_parked = False

    def look_through(self) -> None:
        """Look through everything that is parked, from the start."""
        if self._may_be_parked or self._places:
            self._places = deque(_places(self._memory.epochs))
            self._may_be_parked = False

    def poll(self) -> None:
        """Look again for rows that another session had locked when they were to be un-parked."""
        if self._again:
            self._again = False
            self.look_through()

    def wants(self) -> bool:
        """Tell whether `step` would do something."""
        return bool(self._places) or bool(self._memory.owned_anew) or any(True for _ in self._candidates())

    async def step(self) -> None:
        """Do a batch of either. Raises UnavailableError when nothing was done."""
        self._places.extend(_places(self._memory.owned_anew))  # an owner before may have parked there
        self._memory.owned_anew.clear()
        chosen = list(islice(self._candidates(), _INSTANCES_AT_ONCE))
        if chosen:
            await self._park(chosen)
        elif self._places:
            await self._look()

    def _candidates(self) -> Iterable[AnyMemory]:
        memory = self._memory
        if (memory.early or memory.ready.count(self._seats.nobody)
                or memory.entities.count(self._entity_seats.nobody)):
            return self._lot.candidates(self._idle())
        return ()

    def _idle(self) -> Iterable[AnyMemory]:
        waiting: tuple[Iterable[AnyMemory], ...] = (
            self._memory.ready.waiting_for(self._seats.nobody),
            self._memory.entities.waiting_for(self._entity_seats.nobody))
        return (mem for lane in waiting for mem in lane if mem.needs is None or not mem.needs.echo)

    async def _park(self, chosen: list[AnyMemory]) -> None:
        park, classes = self._lot.begin(chosen, self._host_id), list(self._classes(chosen))
        parked = None
        try:
            parked = await self._committer.park(park)
            self._may_be_parked = True
        except OutcomeUnknownError as error:
            _log.warning("the outcome of a parking is unknown, reloading: %s", error)
            self._lose_ownership()
        finally:
            self._lot.finish(park, parked)
        if parked is not None and parked.lost_partitions & self._memory.epochs.keys():
            self._lose_ownership()
        # A worker may have come while the rows were on their way out, when it found nothing parked.
        if any(one.is_taken for one in classes):
            self.look_through()

    def _classes(self, chosen: Iterable[AnyMemory]) -> Iterable[_Class]:
        for mem in chosen:
            needs = mem.needs or Needs()
            if isinstance(mem, EntityMemory):
                yield _Class(self._entity_seats, mem.name, None, needs)
            elif mem.row is not None:
                yield _Class(self._seats, mem.row.name, mem.row.version, needs)

    async def _look(self) -> None:
        """Look at the next parked rows, and un-park those that somebody takes."""
        place, places = self._places[0], self._places
        if place.partition not in self._memory.epochs:
            places.popleft()
            return
        rows = await self._committer.parked(place, _ROWS_AT_ONCE)
        wanted = dict.fromkeys(row.key for row in rows if self._may_run(row))
        if wanted:
            try:
                taken = await self._committer.unpark(tuple(wanted))
            except OutcomeUnknownError as error:
                _log.warning("the outcome of an un-parking is unknown, reloading: %s", error)
                self._lose_ownership()
                return
            unparked = taken.timers if place.timers else taken.messages
            self._again |= any((row.key.partition, row.seq) not in unparked for row in rows if row.key in wanted)
            self._memory.scan((place.partition,))
            self._memory.wants_timers |= bool(taken.timers)
        self._may_be_parked |= self._again or len(wanted) < len({row.key for row in rows})
        if places is not self._places:
            return  # somebody asked meanwhile to begin anew
        if len(rows) < _ROWS_AT_ONCE:
            places.popleft()
        else:
            places[0] = replace(place, after_at=rows[-1].fire_at, after=rows[-1].seq)

    def _may_run(self, row: ParkedRow) -> bool:
        if row.starts_at is not None and row.starts_at > self._clock.now():
            return False  # when the start is due its claim takes them
        if is_entity(row.key.instance_id):
            return bool(self._entity_seats.takers(entity_name(row.key.instance_id), None))
        return row.name is None or bool(self._seats.takers(row.name, row.version))


def _places(partitions: Iterable[int]) -> list[ParkedPlace]:
    return [ParkedPlace(partition, timers) for timers in (False, True) for partition in sorted(partitions)]
