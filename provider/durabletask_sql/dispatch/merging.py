"""How memory follows a committed group or a load. No IO.

A reply counts only for partitions whose epoch is still the one it was made under: what came back for a partition that
was lost and taken again meanwhile is dropped.
"""

from collections.abc import Sequence

from durabletask_sql.model.checkpoints import (
    ActivityCompletion,
    Discard,
    EntityCheckpoint,
    Item,
    OrchestrationStart,
    Outcome,
    OutcomeKind,
    Quarantine,
    TurnCheckpoint,
)
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.speculation import Speculation
from durabletask_sql.ports.committer import Committed, Group, Load, Loaded


class Merger:
    """Applies replies to the memory of one hub."""

    def __init__(self, memory: Memory, speculation: Speculation) -> None:
        """Work on this memory."""
        self._memory = memory
        self._speculation = speculation

    def merge(self, group: Group, committed: Committed, provisional: Sequence[int | None]) -> frozenset[int]:
        """Follow a group; return the partitions for which its reply counted.

        `provisional` are, for each item, the sequences under which its message entered memory before the commit.
        """
        memory = self._memory
        live = frozenset(p for p, epoch in group.epochs.items() if memory.epochs.get(p) == epoch)
        for item, outcome in zip(group.items, committed.outcomes, strict=True):
            if item.key.partition in live:
                self._merge_item(item, outcome)
        for child in committed.children:
            if child.partition in live and not self._speculation.has_begun(child):
                memory.merge_child(child)
        self._settle(group, committed, provisional)
        memory.merge_rows(row for row in committed.entered if row.key.partition in live)
        memory.merge_ceilings({key: value for key, value in committed.ceilings.items() if key.partition in live})
        self._speculation.redo_overtaken(committed.ceilings)
        memory.wake(key for key, ceiling in committed.ceilings.items() if ceiling is not None and key.partition in live)
        memory.merge_timers(timer for timer in committed.timers if timer.key.partition in live)
        memory.wake(key for key in committed.unheld if key.partition in live)
        return live

    def _settle(self, group: Group, committed: Committed, provisional: Sequence[int | None]) -> None:
        """Give messages that entered before their commit their sequence, or take them out where they did not come."""
        if not any(provisional):
            return
        rows = {id(row.events): row for row in committed.entered}
        for item, seq in zip(group.items, provisional, strict=True):
            # A row keeps the very bytes of its message: that is how the two are matched.
            if seq is not None and isinstance(item, ActivityCompletion):
                self._speculation.settle(item.key, seq, rows.get(id(item.message.events)))
            elif seq is not None and isinstance(item, OrchestrationStart):
                self._speculation.settle_start(item.key, seq, rows.get(id(item.child.start.events)))

    def withdraw(self, start: OrchestrationStart, provisional: int | None) -> None:
        """Let go of a start whose commit will not be tried again."""
        if provisional is not None:
            self._speculation.settle_start(start.key, provisional, None)

    def _merge_item(self, item: Item, outcome: Outcome) -> None:
        committed = outcome.kind is OutcomeKind.COMMITTED
        match item:
            case TurnCheckpoint() if committed:
                self._memory.committed(item)
            case EntityCheckpoint() if committed:
                self._memory.stepped(item)
            case TurnCheckpoint() | EntityCheckpoint() if outcome.kind is OutcomeKind.LOST:
                self._memory.lose(item.key)
            case Discard() | Quarantine() if committed:
                self._memory.discarded(item.key, item.seqs, item.timers)
            case Discard() | Quarantine() if outcome.kind is not OutcomeKind.BUSY:
                self._memory.lose(item.key)
            case _:
                pass

    def merge_load(self, load: Load, loaded: Loaded) -> frozenset[int]:
        """Follow a load; return the partitions for which its reply counted."""
        memory = self._memory
        live = frozenset(p for p, epoch in load.epochs.items() if memory.epochs.get(p) == epoch)
        memory.merge_fresh((found for found in loaded.fresh if found.key.partition in live),
                           frozenset(row.seq for row in loaded.claimed))
        memory.merge_rows((row for row in loaded.claimed if row.key.partition in live),
                          frozenset(found.key for found in loaded.fresh))
        memory.merge_ceilings({key: value for key, value in loaded.ceilings.items() if key.partition in live})
        self._speculation.redo_overtaken(loaded.ceilings)
        memory.settle_load(found.key for found in loaded.fresh)
        memory.merge_timers(timer for timer in loaded.timers if timer.key.partition in live)
        memory.scan(loaded.scan_full & live)
        if loaded.timers_full:
            memory.wants_timers = True
        return live
