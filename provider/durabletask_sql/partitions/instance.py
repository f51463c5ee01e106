"""What the owner knows of one instance: its row, its history, its queue rows, its ceiling, the due timers taken up.

Mutable, and touched by `Memory` alone.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import MessageKind, QueueRow, TimerRow
from durabletask_sql.partitions.lanes import Lane
from durabletask_sql.ports.work import Executor, Needs
from durabletask_sql.turn.intake import Intake

_CHUNKS = 64

# Rows whose commit is in flight sort behind all others: their sequence is not known yet.
PROVISIONAL = 1 << 62


@dataclass(slots=True, eq=False)
class InstanceMemory:
    """One instance in memory.

    `known` says that `row` and `history` are what the database says (row None: there is no such instance).
    `refs` are, by their place in `history`, the parts whose large texts are not in memory; the instance is then hollow.
    `stale` says that they have to be read afresh before the next turn. `turn` is the intake of the turn that is out
    at an executor or on its way to the database; at most one is. `blocked` keeps it from running until a delay ends.
    `needs` is what its next turn asks of an executor beyond taking its name; `needs_executor` says that the host has
    looked and can do nothing for it alone. `lane` and `place` are those of `Lanes`.
    """

    key: InstanceKey
    row: InstanceRow | None = None
    known: bool = False
    stale: bool = False
    history: list[bytes] = field(default_factory=list)
    refs: Mapping[int, bytes] = field(default_factory=dict)
    rows: list[QueueRow] = field(default_factory=list)
    ceiling: int | None = None
    timers: list[TimerRow] = field(default_factory=list)
    turn: Intake | None = None
    blocked: bool = False
    abandons: int = 0
    abandoned_by: Executor | None = None
    failures: int = 0
    startless_read: bool = False
    settled: dict[int, int] = field(default_factory=dict)  # provisional sequences of the turn that is out: the real ones
    size: int = 0  # bytes of the queue rows
    history_size: int = 0
    lane: Lane | None = None
    place: int = 0
    needs: Needs | None = None
    needs_executor: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether it could leave memory without being missed."""
        return self.turn is None and not self.rows and not self.timers and not self.stale and not self.blocked

    @property
    def can_run(self) -> bool:
        """Whether a turn may be taken: it is known, nothing of it is out, and something waits."""
        if not self.known or self.stale or self.turn is not None or self.blocked:
            return False
        return bool(self.rows) or (bool(self.timers) and self.ceiling is None)

    def enter(self, row: QueueRow) -> bool:
        """Let a queue row enter, in order of sequence; return False when it is there already."""
        at = bisect.bisect_left(self.rows, row.seq, key=_seq)
        if at < len(self.rows) and self.rows[at].seq == row.seq:
            return False
        self.rows.insert(at, row)
        self.size += len(row.events)
        self.startless_read = False
        return True

    def depends_on(self, provisional: int) -> bool:
        """Tell whether the turn that is out has seen a row whose commit was still in flight."""
        return self.turn is not None and provisional in self.turn.consumed

    def has_overtaken(self) -> bool:
        """Tell whether an older row, or a ceiling, turned up behind the back of the turn that is out."""
        if self.turn is None:
            return False
        seen = {self.settled.get(seq, seq) for seq in self.turn.consumed}
        last = max((seq for seq in seen if seq < PROVISIONAL), default=0)
        if self.ceiling is not None and self.ceiling < last:
            return True
        return any(row.seq < last and row.seq not in seen for row in self.rows)

    def runnable(self) -> list[QueueRow]:
        """Return the rows below the ceiling in dispatch order: the start row of the current execution first."""
        execution = self.row.execution_id if self.row is not None else None
        first: list[QueueRow] = []
        others: list[QueueRow] = []
        for row in self.rows:
            if row.kind is MessageKind.START and row.execution_id == execution:
                first.append(row)
            elif self.ceiling is None or row.seq < self.ceiling:
                others.append(row)
        return first + others

    def due(self) -> list[TimerRow]:
        """Return the due timers that may run: none while the instance has a ceiling."""
        return self.timers if self.ceiling is None else []

    def replace_history(self, parts: Sequence[bytes], refs: Mapping[int, bytes]) -> None:
        """Take in a history as it was read, or none."""
        self.history, self.refs = list(parts), refs
        self.history_size = sum(map(len, self.history))
        self.needs, self.needs_executor = None, False

    def append(self, events: bytes) -> None:
        """Add a turn's events to the history; many small parts are joined now and then."""
        self.history.append(events)
        self.history_size += len(events)
        if len(self.history) > _CHUNKS:
            self.history = [b"".join(self.history)]

    def remove(self, seqs: frozenset[int], timers: frozenset[int]) -> None:
        """Take out rows and timers that a commit has deleted."""
        if seqs:
            self.rows = [row for row in self.rows if row.seq not in seqs]
            self.size = sum(len(row.events) for row in self.rows)
        if timers:
            self.timers = [timer for timer in self.timers if timer.seq not in timers]


def _seq(row: QueueRow) -> int:
    return row.seq
