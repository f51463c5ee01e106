"""What the owner knows of one orchestration instance: its row, its history, what waits for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from durabletask_sql.model.checkpoints import TurnCheckpoint
from durabletask_sql.model.instances import InstanceRow
from durabletask_sql.model.messages import MessageKind, QueueRow, TimerRow
from durabletask_sql.partitions.resident import PROVISIONAL, Resident
from durabletask_sql.partitions.suspects import is_accused, is_suspect, parted
from durabletask_sql.turn.intake import Intake

_CHUNKS = 64


@dataclass(slots=True, eq=False)
class InstanceMemory(Resident[Intake]):
    """One orchestration instance in memory. `row` None, when it is known: there is no such instance.

    `refs` are, by their place in `history`, the parts whose large texts are not in memory; the instance is then hollow.
    """

    row: InstanceRow | None = None
    history: list[bytes] = field(default_factory=list)
    history_size: int = 0  # bytes
    refs: Mapping[int, bytes] = field(default_factory=dict)
    startless_read: bool = False
    rests: bool = False  # after a turn in vain: the next one waits a moment for more
    settled: dict[int, int] = field(default_factory=dict)  # provisional sequences of the turn that is out: the real ones

    @property
    def can_run(self) -> bool:
        """Whether a turn may be taken: nothing stands in the way, and something waits."""
        return self.may_run and not self.rests and (bool(self.rows) or bool(self.due()))

    @property
    def is_suspect(self) -> bool:
        """Whether its next turn is one of a suspect row or timer."""
        return self.marked and is_suspect(self._worst_of_next())

    @property
    def is_accused(self) -> bool:
        """Whether that one was lost as a suspect. What has come back with a bad answer has run: no doubt of that."""
        return self.marked and not self.failures and is_accused(self._worst_of_next())

    def _worst_of_next(self) -> int:
        rows, timers = parted(self.runnable(), self.due())
        return max([*(row.failed for row in rows), *(timer.failed for timer in timers)], default=0)

    @property
    def is_over(self) -> bool:
        """Whether, for all that was read, nothing can happen to it any more."""
        return self.row is None or self.row.status.is_terminal

    @property
    def waits_for_rows(self) -> bool:
        """Whether its ceiling keeps it from running."""
        return self.turn is None and (not self.runnable() or self.lacks_start)

    @property
    def lacks_start(self) -> bool:
        """Whether it has not begun and its start row is not here."""
        row = self.row
        return row is not None and not row.status.is_terminal and not row.history_count and not any(
            queued.kind is MessageKind.START and queued.execution_id == row.execution_id for queued in self.rows)

    @property
    def is_early(self) -> bool:
        """Whether its start is not due yet."""
        scheduled = self.row is not None and self.row.scheduled_at is not None
        return scheduled and self.lacks_start and not self.timers

    def is_news(self, row: QueueRow) -> bool:
        """Tell whether a row belongs to an execution that memory does not know: a late one, or that of a re-creation.

        Only a read that is newer than the row can tell the two apart, and only the late one may be discarded.
        """
        return self.row is None or not self.row.is_addressed_by(row.execution_id)

    def enter(self, row: QueueRow) -> bool:
        """Let a queue row enter, in order of sequence; return False when it is there already."""
        entered = super(InstanceMemory, self).enter(row)
        if entered:
            self.startless_read = False
        return entered

    @property
    def may_need_none(self) -> bool:
        """Whether the host may be able to do something for it alone, now that a row has come: a termination."""
        return self.row is None or not self.row.history_count

    def take_back(self) -> None:
        """Forget the turn that was out."""
        self.turn, self.settled = None, {}

    def follow(self, checkpoint: TurnCheckpoint) -> None:
        """Be as a committed turn left it; its rows and timers are `Memory`'s to remove."""
        self.succeed()
        self.row = checkpoint.row
        if checkpoint.ended or checkpoint.continued_from is not None:
            self.replace_history((), {})
        elif checkpoint.history is not None:
            self.append(checkpoint.history.events)

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
        """Return the due timers that may run: while there is a ceiling its scheduled start alone, which comes first."""
        if self.ceiling is None or not self.timers or not self.lacks_start:
            return super(InstanceMemory, self).due()
        return [timer for timer in self.timers if timer.kind is MessageKind.START]

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
