"""Ready work by who takes it: a lane for each group of takers, so that work which nobody takes delays no other.

Finding the next item looks at the heads of the lanes, never at what waits behind them. Who the takers are, and whether
they have room, is told from outside.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

GroupT = TypeVar("GroupT")
SeatT = TypeVar("SeatT")


class Lane:
    """The items that one group of takers takes, by their place in the order of all lanes."""

    __slots__ = ("group", "items")

    def __init__(self, group: object) -> None:
        """Start empty."""
        self.group: Any = group
        self.items: OrderedDict[int, Any] = OrderedDict()


class Queued(Protocol):
    """What can stand in a lane. Both attributes are `Lanes`' own."""

    lane: Lane | None
    place: int


ItemT = TypeVar("ItemT", bound=Queued)


class Lanes(Generic[ItemT, GroupT]):
    """Items waiting for a taker, oldest first over all lanes."""

    def __init__(self, group_of: Callable[[ItemT], GroupT]) -> None:
        """`group_of` tells who takes an item; groups are compared by identity."""
        self._group_of = group_of
        self._lanes: dict[GroupT, Lane] = {}
        self._last = self._first = 0

    def __len__(self) -> int:
        """Return how many items wait."""
        return sum(len(lane.items) for lane in self._lanes.values())

    def add(self, item: ItemT, *, first: bool = False) -> None:
        """Put an item that stands nowhere behind all others, or before them."""
        lane = self._lane(self._group_of(item))
        if first:
            self._first -= 1
            item.place = self._first
        else:
            self._last += 1
            item.place = self._last
        item.lane = lane
        lane.items[item.place] = item
        if first:
            lane.items.move_to_end(item.place, last=False)

    def remove(self, item: ItemT) -> None:
        """Take an item out, if it stands anywhere."""
        if item.lane is not None:
            del item.lane.items[item.place]
            item.lane = None

    def move(self, item: ItemT) -> None:
        """Put an item that stands somewhere into the lane that is right for it now, in front."""
        if item.lane is not None:
            self.remove(item)
            self.add(item, first=True)

    def take(self, seat_for: Callable[[GroupT], SeatT | None]) -> tuple[ItemT, SeatT] | None:
        """Remove and return the oldest item that somebody with room takes, with whom `seat_for` names."""
        chosen: tuple[Lane, SeatT] | None = None
        oldest = 0
        for lane in self._lanes.values():
            if lane.items:
                place = next(iter(lane.items))
                if (chosen is None or place < oldest) and (seat := seat_for(lane.group)) is not None:
                    chosen, oldest = (lane, seat), place
        if chosen is None:
            return None
        item: ItemT = chosen[0].items.pop(oldest)
        item.lane = None
        return item, chosen[1]

    def count(self, group: GroupT) -> int:
        """Return how many items wait for a group."""
        lane = self._lanes.get(group)
        return len(lane.items) if lane is not None else 0

    def counts(self) -> dict[GroupT, int]:
        """Return how many items wait for each group."""
        return {group: len(lane.items) for group, lane in self._lanes.items()}

    def waiting_for(self, group: GroupT) -> Iterable[ItemT]:
        """Return the items whose takers these are, oldest first."""
        lane = self._lanes.get(group)
        return lane.items.values() if lane is not None else ()

    def waiting(self) -> list[ItemT]:
        """Return all items, oldest first in each lane."""
        return [item for lane in self._lanes.values() for item in lane.items.values()]

    def sort_again(self) -> None:
        """Put every item into the lane that is right for it now: the groups have changed."""
        items = self.waiting()
        self._lanes.clear()
        for item in sorted(items, key=_place):
            lane = self._lane(self._group_of(item))
            item.lane = lane
            lane.items[item.place] = item

    def _lane(self, group: GroupT) -> Lane:
        lane = self._lanes.get(group)
        if lane is None:
            lane = self._lanes[group] = Lane(group)
        return lane


def _place(item: Queued) -> int:
    return item.place
