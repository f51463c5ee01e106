"""Connected executors for one kind of work: who takes what, who has room, and what each of them holds.

No decisions about items. Executors of one profile take the same work; a group of takers is looked up by (name,
version), so that matching costs by the groups and executors there are, not by the items that wait.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from durabletask_sql.partitions.suspects import Delivery, Standing, Suspicion
from durabletask_sql.ports.work import Executor, Needs, Profile, WorkKind

_CACHED_NAMES = 10_000


class Held(Delivery, Protocol):
    """An item that an executor holds. `key` is what an answer without a token names."""

    @property
    def token(self) -> str:
        """What identifies this dispatch."""
        ...

    @property
    def key(self) -> Hashable:
        """What the item is."""
        ...


HeldT = TypeVar("HeldT", bound=Held)


@dataclass(slots=True, eq=False)
class Seat(Generic[HeldT]):
    """A connected executor with what it holds of one kind of work."""

    executor: Executor
    profile: Profile
    slots: int
    standing: Standing
    held: dict[str, HeldT] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """How many more items it takes."""
        return self.slots - len(self.held)


class Takers(Generic[HeldT]):
    """The executors that take some class of work: those of these profiles.

    With a `suspicion` it is work of suspects, or of those of them that are `accused`.
    """

    __slots__ = ("accused", "profiles", "seats", "suspicion")

    def __init__(self, profiles: frozenset[Profile], suspicion: Suspicion | None = None, *, accused: bool = False) -> None:
        """Begin with nobody seated."""
        self.profiles = profiles
        self.suspicion = suspicion
        self.accused = accused
        self.seats: list[Seat[HeldT]] = []

    def __bool__(self) -> bool:
        """Tell whether there is anybody."""
        return bool(self.seats)

    @property
    def room(self) -> int:
        """How many more items all of them take."""
        return sum(max(0, seat.room) for seat in self.seats)


SeatFor = Callable[[Takers[HeldT]], Seat[HeldT] | None]


def roomiest(takers: Takers[HeldT]) -> Seat[HeldT] | None:
    """Return the executor with most room, if any has some (and may take a suspect, where it is about one)."""
    best, most = None, 0
    for seat in takers.seats:
        room = seat.slots - len(seat.held)
        if room > most and (takers.suspicion is None
                            or takers.suspicion.may_take(seat.standing, accused=takers.accused)):
            best, most = seat, room
    return best


def first_for_suspects(takers: Takers[HeldT]) -> Seat[HeldT] | None:
    """Return an executor that may be given a suspect before anything else, where it is about suspects."""
    suspicion = takers.suspicion
    if suspicion is None:
        return None
    return next((seat for seat in takers.seats if seat.room > 0 and suspicion.may_begin_with(seat.standing)), None)


def prefer_another(takers: Takers[HeldT], seat: Seat[HeldT], gave_back: Executor | None) -> Seat[HeldT]:
    """Return an executor with room other than the one that gave an item back last, if there is one."""
    if seat.executor is not gave_back or takers.suspicion is not None:
        return seat
    others = [other for other in takers.seats if other is not seat and other.room > 0]
    return max(others, key=lambda other: other.room, default=seat)


class Seats(Generic[HeldT]):
    """All executors that take a kind of work, and every open item by its token."""

    def __init__(self, kind: WorkKind, suspicion: Suspicion) -> None:
        """Begin with nobody connected. `suspicion` is shared by all kinds of work."""
        self._kind = kind
        self.suspicion = suspicion
        self._seats: list[Seat[HeldT]] = []
        self._open: dict[str, tuple[Seat[HeldT], HeldT]] = {}
        self._by_key: dict[Hashable, tuple[Seat[HeldT], HeldT]] = {}
        self._groups: dict[tuple[frozenset[Profile], Suspicion | None, bool], Takers[HeldT]] = {}
        self._by_name: dict[tuple[str, str | None], Takers[HeldT]] = {}

    # Who takes what

    def takers(self, name: str, version: str | None) -> Takers[HeldT]:
        """Return who takes items of this name and version."""
        found = self._by_name.get((name, version))
        if found is None:
            if len(self._by_name) >= _CACHED_NAMES:
                self._by_name.clear()
            found = self._by_name[name, version] = self.takers_of(name, version, Needs())
        return found

    def takers_of(self, name: str, version: str | None, needs: Needs) -> Takers[HeldT]:
        """Return who takes items of this name and version that have these needs."""
        return self._group(frozenset(profile for profile in self.profiles() if profile.meets(needs)
                                     and self.takes(profile, name, version)))

    def suspects(self, takers: Takers[HeldT], *, accused: bool) -> Takers[HeldT]:
        """Return who takes the suspects among the work that these take; nobody takes what nobody takes."""
        self.suspicion.aroused = True
        return self._group(takers.profiles, self.suspicion, accused=accused) if takers else takers

    @property
    def nobody(self) -> Takers[HeldT]:
        """The takers of what nobody takes."""
        return self._group(frozenset())

    def takes(self, profile: Profile, name: str, version: str | None) -> bool:
        """Tell whether a profile's filter takes this name and version."""
        names = self._kind.filter_of(profile.filters)
        return names is None or names.takes(name, version)

    def profiles(self) -> list[Profile]:
        """Return the profiles of those connected, each once."""
        return list(dict.fromkeys(seat.profile for seat in self._seats))

    def rooms(self) -> dict[Profile, int]:
        """Return how many more items the executors of each profile take together."""
        rooms: dict[Profile, int] = {}
        for seat in self._seats:
            rooms[seat.profile] = rooms.get(seat.profile, 0) + seat.room
        return rooms

    def _group(self, profiles: frozenset[Profile], suspicion: Suspicion | None = None, *,
               accused: bool = False) -> Takers[HeldT]:
        found = self._groups.get((profiles, suspicion, accused))
        if found is None:
            found = self._groups[profiles, suspicion, accused] = Takers(profiles, suspicion, accused=accused)
            found.seats = [seat for seat in self._seats if seat.profile in profiles]
        return found

    # Who is there

    def add(self, executor: Executor, slots: int, standing: Standing) -> bool:
        """Seat an executor, unless it takes nothing of this kind; return whether anybody new takes anything."""
        if slots <= 0:
            return False
        known = executor.profile in self.profiles()
        self._seats.append(Seat(executor, executor.profile, slots, standing))
        return self._rearrange(changed=not known)

    def remove(self, executor: Executor) -> tuple[list[HeldT], bool]:
        """Unseat an executor; return what it held, and whether some work may have lost its last taker."""
        gone = [seat for seat in self._seats if seat.executor is executor]
        self._seats = [seat for seat in self._seats if seat.executor is not executor]
        held = [item for seat in gone for item in seat.held.values()]
        for item in held:
            self.close(item.token)
        return held, self._rearrange(changed=any(seat.profile not in self.profiles() for seat in gone))

    def _rearrange(self, *, changed: bool) -> bool:
        if changed:
            self._groups.clear()
            self._by_name.clear()
        for (profiles, _, _), takers in self._groups.items():
            takers.seats = [seat for seat in self._seats if seat.profile in profiles]
        return changed

    # What they hold

    def open(self, seat: Seat[HeldT], item: HeldT) -> None:
        """Note an item that was handed out."""
        seat.held[item.token] = item
        self.suspicion.went_out(seat.standing, item)
        entry = self._open[item.token] = (seat, item)
        if seat.profile.echoes_tokens and self.is_open_without_token(item.key):
            return
        self._by_key[item.key] = entry

    def close(self, token: str) -> HeldT | None:
        """Free the slot of an item that came back; None when the token is not open."""
        entry = self._open.pop(token, None)
        if entry is None:
            return None
        seat, item = entry
        seat.held.pop(token, None)
        self.suspicion.came_back(seat.standing, item)
        if self._by_key.get(item.key) is entry:
            del self._by_key[item.key]
        return item

    def find(self, token: str) -> HeldT | None:
        """Return the open item of a token."""
        entry = self._open.get(token)
        return entry[1] if entry is not None else None

    def token_of(self, key: Hashable) -> str:
        """Return the token of the open item with this key, or "" (for SDKs that do not echo tokens)."""
        entry = self._by_key.get(key)
        return entry[1].token if entry is not None else ""

    def is_open_without_token(self, key: Hashable) -> bool:
        """Tell whether this key is open on an executor that will answer without a token."""
        entry = self._by_key.get(key)
        return entry is not None and not entry[0].profile.echoes_tokens

    def __len__(self) -> int:
        """Return how many items are open."""
        return len(self._open)
