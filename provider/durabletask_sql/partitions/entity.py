"""What the owner knows of one entity: its row, and what waits for it.

An entity may have to wait for others: while its lock is held, messages that cannot run are not kept here. They stay
held in the database (so that no scan meets them again and again), and the entity is read afresh once the lock is free.
Otherwise a few locked entities with long queues could fill the memory in which their lock's holder has to run.
"""

from dataclasses import dataclass

from durabletask_sql.ids import entity_name
from durabletask_sql.model.checkpoints import EntityCheckpoint
from durabletask_sql.model.entities import EntityRow
from durabletask_sql.model.messages import MessageKind, QueueRow
from durabletask_sql.partitions.resident import Resident
from durabletask_sql.partitions.suspects import is_accused, is_suspect
from durabletask_sql.turn.entity.intake import Inbox, Step


@dataclass(slots=True, eq=False)
class EntityMemory(Resident[Step]):
    """One entity in memory.

    `row` None, when it is known: it has neither state nor lock, which keeps it from nothing. `hidden` is the lowest
    sequence that this host holds and does not have here. `idle` says that nothing of what is here can go on. For the
    next `singly` steps operations run one by one: together their answer was too large.
    """

    row: EntityRow | None = None
    hidden: int | None = None
    idle: bool = False
    singly: int = 0

    @property
    def name(self) -> str:
        """The entity's name, as filters have it."""
        return entity_name(self.key.instance_id)

    @property
    def may_need_none(self) -> bool:
        """Whether the host may be able to do something for it alone, now that a row has come: locks need nobody."""
        return True

    @property
    def history_size(self) -> int:
        """Characters of the state, which it has instead of a history."""
        return len(self.row.state or "") if self.row is not None else 0

    @property
    def state_size(self) -> int:
        """Bytes of the state."""
        state = self.row.state if self.row is not None else None
        return len(state.encode()) if state is not None else 0

    @property
    def is_locked(self) -> bool:
        """Whether only its lock's holder gets on with it."""
        return self.row is not None and self.row.lock is not None

    @property
    def keeps_timers(self) -> bool:
        """Whether due signals are here that would be missed: those that wait for its lock are read with what frees it."""
        return bool(self.timers) and not self.is_locked

    @property
    def can_run(self) -> bool:
        """Whether its next step may be looked for."""
        return self.may_run and not self.idle and (bool(self.rows) or (bool(self.timers) and not self.is_locked))

    @property
    def is_suspect(self) -> bool:
        """Whether any of its messages is a suspect: all run one by one then."""
        return self.marked and is_suspect(self.worst)

    @property
    def is_accused(self) -> bool:
        """Whether any was lost as a suspect. What has come back with a bad answer has run: no doubt of that."""
        return self.marked and not self.failures and is_accused(self.worst)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to know of it."""
        return self.row is None

    @property
    def is_full(self) -> bool:
        """Whether rows of it stay behind on purpose: never those that cannot run, they are held."""
        return self.ceiling is not None and not self.is_choosy

    @property
    def is_choosy(self) -> bool:
        """Whether it keeps only what can run of what it is given."""
        return self.is_locked or self.hidden is not None

    @property
    def counted(self) -> int:
        """How many of its rows count towards its share: none while it keeps only what can run."""
        return 0 if self.is_choosy else super(EntityMemory, self).counted

    @property
    def waits_for_rows(self) -> bool:
        """Whether its ceiling keeps it from running, and a claim could bring what it needs."""
        return self.may_run and not self.is_choosy and (self.idle or not self.rows)

    @property
    def lacks_hidden(self) -> bool:
        """Whether it has to be read afresh: it needs what it does not have here."""
        if self.hidden is None or self.is_locked or not self.may_run:
            return False
        return self.idle or not any(row.seq < self.hidden for row in self.rows)

    def inbox(self) -> Inbox:
        """Return what its next step may see."""
        return Inbox(self.key, self.row, list(self.rows), self.ceiling, tuple(self.due()))

    def enter(self, row: QueueRow) -> bool:
        """Let a queue row enter, in order of sequence; return False when it is there already, or cannot run now."""
        self.idle = False
        waits = self.known and row.kind is not MessageKind.AHEAD
        if waits and (self.is_locked or (self.hidden is not None and row.seq >= self.hidden)):
            self._hide(row)
            return False
        return super(EntityMemory, self).enter(row)

    def see_ceiling(self, unheld: int | None) -> None:
        """Take note of the lowest row that nobody holds; what is hidden is not here either."""
        self.ceiling = min((seq for seq in (unheld, self.hidden) if seq is not None), default=None)

    def is_news(self, row: QueueRow) -> bool:
        """Tell whether it has to be read afresh because of a row: an entity has no executions that could change."""
        del row
        return False

    def forget(self) -> None:
        """Know nothing any more but the key; the rows are `Memory`'s to remove."""
        super(EntityMemory, self).forget()
        self.hidden = None

    def follow(self, checkpoint: EntityCheckpoint) -> None:
        """Be as a committed step left it; its rows and timers are `Memory`'s to remove."""
        self.succeed()
        self.row, self.idle, self.singly = checkpoint.row, False, max(0, self.singly - 1)

    def waiting(self) -> frozenset[int]:
        """Return the rows that cannot run before the lock is free, and take note that they are to leave memory."""
        if not self.is_locked:
            return frozenset()
        found = [row for row in self.rows if row.kind is not MessageKind.AHEAD]
        for row in found:
            self._hide(row)
        return frozenset(row.seq for row in found)

    def _hide(self, row: QueueRow) -> None:
        self.hidden = row.seq if self.hidden is None else min(self.hidden, row.seq)
        self.see_ceiling(self.ceiling)
