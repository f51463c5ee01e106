"""What has to be loaded: instances to claim, instances to read afresh, partitions to scan; and timers that wait for it.

A due timer takes its place behind the rows of its instance that a load claims after its due time.
"""

from collections.abc import Callable
from typing import Any

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import TimerRow
from durabletask_sql.partitions.limits import Wanted
from durabletask_sql.partitions.resident import Resident

Room = Callable[[int], int]
Find = Callable[[InstanceKey], Resident[Any] | None]


class Loads:
    """Loads that are wanted, and the due timers whose load is out."""

    def __init__(self) -> None:
        """Want nothing."""
        self.claims: dict[InstanceKey, None] = {}
        self.fresh: dict[InstanceKey, None] = {}
        self.scans: set[int] = set()
        self.lost: set[InstanceKey] = set()  # while a load is out: what it read may be of before
        self._is_out = False
        self._asked: dict[InstanceKey, frozenset[int]] = {}
        self._due: dict[InstanceKey, list[TimerRow]] = {}
        self._due_taken: dict[InstanceKey, list[TimerRow]] = {}

    def drop(self, partition: int) -> None:
        """Want nothing of a partition any more."""
        self.scans.discard(partition)
        for table in (self.claims, self.fresh, self._due, self._due_taken):
            for key in [key for key in table if key.partition == partition]:
                del table[key]

    def take(self, room: Room, find: Find) -> Wanted:
        """Return and forget what has to be loaded now: nothing afresh that is out, no scan without room."""
        fresh = tuple(key for key in self.fresh if not _has_turn(find(key)))
        claims = tuple(key for key in self.claims if key not in self.fresh)
        scan = {partition: free for partition in sorted(self.scans) if (free := room(partition))}
        for key in fresh:
            del self.fresh[key]
        self.claims.clear()
        self.lost.clear()
        self._is_out = True
        self._asked = {key: mem.durable for key in fresh if (mem := find(key)) is not None}
        # Timers that come due while this load is out wait for the next one, whose claim runs after their due time.
        self._due_taken = {key: self._due.pop(key) for key in (*claims, *fresh) if key in self._due}
        self.scans.difference_update(scan)
        return Wanted(claims, fresh, scan)

    def has_any(self, room: Room, find: Find) -> bool:
        """Tell whether `take` would return something."""
        return bool(self.claims) or any(not _has_turn(find(key)) for key in self.fresh) or any(map(room, self.scans))

    def lose(self, key: InstanceKey) -> None:
        """Note that nothing holds any more of what was known of an instance."""
        if self._is_out:
            self.lost.add(key)

    def gone(self, key: InstanceKey, read: frozenset[int]) -> frozenset[int]:
        """Return which rows were in memory when an instance was asked for, and were not read: they are no more."""
        return self._asked.pop(key, frozenset()) - read

    def wait(self, timer: TimerRow) -> None:
        """Have a due timer wait for the next load of its instance."""
        self._due.setdefault(timer.key, []).append(timer)

    def has_taken_up(self, timer: TimerRow, mem: Resident[Any] | None) -> bool:
        """Tell whether a timer has come due already: what was read meanwhile may have it once more."""
        waiting = (*self._due.get(timer.key, ()), *self._due_taken.get(timer.key, ()))
        return any(one.seq == timer.seq for one in (*waiting, *(mem.timers if mem is not None else ())))

    def settle(self) -> dict[InstanceKey, list[TimerRow]]:
        """Return and forget the timers whose load came back."""
        settled, self._due_taken, self._is_out = self._due_taken, {}, False
        return settled

    def forget_timers(self, key: InstanceKey) -> None:
        """Drop the due timers of an instance that ended or continued as new."""
        self._due.pop(key, None)
        self._due_taken.pop(key, None)

    def awaits(self, key: InstanceKey) -> bool:
        """Tell whether something of an instance is to be loaded, or is being loaded."""
        return any(key in table for table in (self._due, self._due_taken, self.fresh, self.claims))


def _has_turn(mem: Resident[Any] | None) -> bool:
    return mem is not None and mem.turn is not None
