"""The timer window: the delayed messages that come due soon, in memory, earliest first.

Rows enter it when they are claimed (or written by the owner itself) and leave it when they come due, when their
instance ends, or with their partition.
"""

import heapq
from collections.abc import Iterable

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import TimerRow


class TimerWindow:
    """Timers by due time. Removing one is lazy: its heap entry is passed over when it comes up."""

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[tuple[int, int]] = []
        self._rows: dict[int, TimerRow] = {}
        self._by_key: dict[InstanceKey, set[int]] = {}

    def __len__(self) -> int:
        """Return how many timers wait."""
        return len(self._rows)

    def add(self, rows: Iterable[TimerRow]) -> None:
        """Let timers enter; those that are there already stay."""
        for row in rows:
            if row.seq not in self._rows:
                self._rows[row.seq] = row
                self._by_key.setdefault(row.key, set()).add(row.seq)
                heapq.heappush(self._heap, (row.fire_at, row.seq))

    def next_due(self) -> int | None:
        """Return the earliest due time, in microseconds UTC."""
        while self._heap and self._heap[0][1] not in self._rows:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: int) -> list[TimerRow]:
        """Remove and return the timers that are due, earliest first."""
        due = []
        while (first := self.next_due()) is not None and first <= now:
            row = self._rows.pop(heapq.heappop(self._heap)[1])
            self._forget_key(row)
            due.append(row)
        return due

    def drop_instance(self, key: InstanceKey) -> None:
        """Forget the timers of an instance that ended or continued as new."""
        for seq in self._by_key.pop(key, ()):
            del self._rows[seq]

    def drop_partition(self, partition: int) -> None:
        """Forget the timers of a partition that is not ours any more."""
        for key in [key for key in self._by_key if key.partition == partition]:
            self.drop_instance(key)

    def _forget_key(self, row: TimerRow) -> None:
        seqs = self._by_key[row.key]
        seqs.discard(row.seq)
        if not seqs:
            del self._by_key[row.key]
