"""Which activity tasks this host should claim: for each lane its free slots plus one buffer. Pure decisions.

Beside other hosts the buffer is what this one ran between two looks of its upkeep: more would wait here while others
could run it. And while tasks wait that nobody has claimed, new ones queue behind them: of a hub's tasks the oldest are
next, whoever made them.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from durabletask_sql.dispatch.executors import HeldT, Seats, Takers
from durabletask_sql.ports.claims import ActivityClaim, ActivityRoom
from durabletask_sql.ports.work import Profile, WorkKind
from durabletask_sql.protocol.assembly import HEAD_BYTES

ACTIVITY_BUFFER = 200
ACTIVITY_BATCH = 200
_ANY_SIZE = (1 << 31) - 1

Waiting = Mapping[Takers[HeldT], int]
T = TypeVar("T")


def buffer_for(ran: int, peers: int) -> int:
    """Return how many tasks a lane keeps ready beyond its free slots, having run so many between two looks."""
    return min(ACTIVITY_BUFFER, ran) if peers else ACTIVITY_BUFFER


def room_for(seats: Seats[HeldT], waiting: Waiting[HeldT], classes: Iterable[tuple[str, str | None]],
             buffer: int = ACTIVITY_BUFFER) -> ActivityRoom:
    """Return how many new tasks of these (name, version) are born claimed; `waiting` counts those that are here."""
    lanes: dict[tuple[str, str | None], int] = {}
    numbers: dict[Takers[HeldT], int] = {}
    for name, version in classes:
        takers = seats.takers(name, version)
        if takers:
            lanes[name, version] = numbers.setdefault(takers, len(numbers))
    rooms = tuple(max(0, takers.room + buffer - waiting.get(takers, 0)) for takers in numbers)
    return ActivityRoom(lanes, rooms)


def claims_for(seats: Seats[HeldT], waiting: Waiting[HeldT], buffer: int = ACTIVITY_BUFFER) -> tuple[ActivityClaim, ...]:
    """Return what to claim of the tasks that nobody has claimed: a batch for each profile that has run low."""
    claims: dict[tuple[str | None, str | None], ActivityClaim] = {}
    for profile, free in seats.rooms().items():
        here = sum(count for takers, count in waiting.items() if profile in takers.profiles)
        room = min(free + buffer - here, ACTIVITY_BATCH)
        if here > free or room <= 0:
            continue
        size = _ANY_SIZE if profile.message_bytes is None else profile.message_bytes - HEAD_BYTES
        for name, version in _entries(profile):
            found = claims.get((name, version))
            if found is None or found.event_bytes < size:
                most = room if found is None else max(room, found.room)
                claims[name, version] = ActivityClaim(most, size, name, version)
    return tuple(claims.values())


def _entries(profile: Profile) -> Iterable[tuple[str | None, str | None]]:
    names = WorkKind.ACTIVITY.filter_of(profile.filters)
    return ((None, None),) if names is None else names.entries
