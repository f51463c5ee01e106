"""What an instance in memory has in common, whether it is an orchestration or an entity: its queue rows, its ceiling.

Mutable, and touched by `Memory` alone.
"""

import bisect
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.model.messages import QueueRow, TimerRow
from durabletask_sql.partitions.lanes import Lane
from durabletask_sql.ports.work import Executor, Needs

T = TypeVar("T")

# Rows whose commit is in flight sort behind all others: their sequence is not known yet.
PROVISIONAL = 1 << 62

_FEW = 8  # so many rows are looked for one by one: a fan-in has hundreds that wait, and each is settled by itself


@dataclass(slots=True, eq=False)
class Resident(Generic[T]):
    """One instance in memory.

    `known` says that what was read of it is what the database says. `stale` says that it has to be read afresh before
    its next turn. `turn` is what is out at an executor or on its way to the database; at most one is. `blocked` keeps
    it from running until a delay ends. `marked` says that rows or timers of it have failed deliveries, `lost_by` which
    worker was lost last that had it, `refusals` how often in a row the database refused to set something of it aside.
    `ceiling` is the lowest sequence that is not in memory.
    `needs` is what its next turn asks of an executor beyond taking its name; `needs_executor` says that the host has
    looked and can do nothing for it alone. `lane` and `place` are those of `Lanes`.
    """

    key: InstanceKey
    known: bool = False
    stale: bool = False
    rows: list[QueueRow] = field(default_factory=list)
    ceiling: int | None = None
    timers: list[TimerRow] = field(default_factory=list)
    turn: T | None = None
    blocked: bool = False
    abandons: int = 0
    abandoned_by: Executor | None = None
    failures: int = 0
    refusals: int = 0
    marked: bool = False
    lost_by: str | None = None
    size: int = 0  # bytes of the queue rows
    lane: Lane | None = None
    place: int = 0
    needs: Needs | None = None
    needs_executor: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether it could leave memory without being missed."""
        return self.turn is None and not self.rows and not self.keeps_timers and not self.stale and not self.blocked

    @property
    def keeps_timers(self) -> bool:
        """Whether due timers are here that would be missed."""
        return bool(self.timers)

    @property
    def durable(self) -> frozenset[int]:
        """The rows that were committed when they came."""
        return frozenset(row.seq for row in self.rows if row.seq < PROVISIONAL)

    @property
    def may_run(self) -> bool:
        """Whether nothing stands in the way of a turn: it is known, and nothing of it is out."""
        return self.known and not self.stale and self.turn is None and not self.blocked

    @property
    def is_full(self) -> bool:
        """Whether rows of it stay behind on purpose, so that a scan leaves it alone."""
        return self.ceiling is not None

    @property
    def worst(self) -> int:
        """How many deliveries have failed in a row of that row or timer of which most did."""
        return max((*(row.failed for row in self.rows), *(timer.failed for timer in self.timers)), default=0)

    @property
    def counted(self) -> int:
        """How many of its rows count towards its share: those below the ceiling."""
        return len(self.rows) if self.ceiling is None else bisect.bisect_left(self.rows, self.ceiling, key=_seq)

    def enter(self, row: QueueRow) -> bool:
        """Let a queue row enter, in order of sequence; return False when it is there already."""
        at = bisect.bisect_left(self.rows, row.seq, key=_seq)
        if at < len(self.rows) and self.rows[at].seq == row.seq:
            return False
        self.rows.insert(at, row)
        self.size += len(row.events)
        self.marked |= row.failed > 0
        return True

    def has(self, seq: int) -> bool:
        """Tell whether a row is there."""
        return self._find(seq) is not None

    def _find(self, seq: int) -> int | None:
        at = bisect.bisect_left(self.rows, seq, key=_seq)
        return at if at < len(self.rows) and self.rows[at].seq == seq else None

    def mark(self, seqs: Collection[int], timers: Collection[int], failed: Callable[[int], int]) -> None:
        """Give rows and timers their new number of failed deliveries, a function of the old one."""
        self.rows = [replace(row, failed=failed(row.failed)) if row.seq in seqs else row for row in self.rows]
        self.timers = [replace(timer, failed=failed(timer.failed)) if timer.seq in timers else timer
                       for timer in self.timers]
        self.marked = True

    def take_back(self) -> None:
        """Forget the turn that was out."""
        self.turn = None

    def forget(self) -> None:
        """Know nothing any more but the key; the rows are `Memory`'s to remove."""
        self.take_back()
        self.timers, self.known = [], False

    def succeed(self) -> None:
        """Note that a turn was committed: what its executor was, and how often it failed, counts no more."""
        self.take_back()
        self.abandons = self.failures = self.refusals = 0
        self.abandoned_by, self.needs, self.needs_executor = None, None, False

    def see_ceiling(self, unheld: int | None) -> None:
        """Take note of the lowest row that nobody holds."""
        self.ceiling = unheld

    def due(self) -> list[TimerRow]:
        """Return the due timers that may run: none while the instance has a ceiling."""
        return self.timers if self.ceiling is None else []

    def remove(self, seqs: frozenset[int], timers: frozenset[int]) -> None:
        """Take out rows and timers that a commit has deleted."""
        if len(seqs) < _FEW:
            for seq in seqs:
                if (at := self._find(seq)) is not None:
                    self.size -= len(self.rows.pop(at).events)
        else:
            self.rows = [row for row in self.rows if row.seq not in seqs]
            self.size = sum(len(row.events) for row in self.rows)
        if timers:
            self.timers = [timer for timer in self.timers if timer.seq not in timers]
        if self.marked:
            self.marked = self.worst > 0


def _seq(row: QueueRow) -> int:
    return row.seq
