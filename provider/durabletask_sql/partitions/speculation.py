"""Turns ahead of a commit: a message enters memory before it is durable, so that its turn may run meanwhile (I3).

Turns are pure, so this is safe as long as the turn's own commit waits for the message's, and is dropped and redone when
the message did not come, or when its commit saw a ceiling below it, or a claim brought an older row of the instance.
"""

from collections.abc import Iterable

from durabletask_sql.ids import is_guid
from durabletask_sql.model.checkpoints import NewChild
from durabletask_sql.model.instances import InstanceKey, InstanceRow
from durabletask_sql.model.messages import NewMessage, QueueRow
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.partitions.resident import PROVISIONAL


class Speculation:
    """The provisional rows of one memory."""

    def __init__(self, memory: Memory) -> None:
        """Work on this memory."""
        self._memory = memory
        self._given = 0

    def enter(self, message: NewMessage) -> int | None:
        """Let a message in before its commit, if its instance could run on it; return its provisional sequence."""
        memory = self._memory
        mem = memory.instance(message.key)
        if mem is None or mem.stale or mem.ceiling is not None or mem.row is None or not mem.row.history_count:
            return None
        if mem.row.execution_id != message.execution_id or len(mem.rows) >= memory.limits.share_messages:
            return None
        return self._let_in(message)

    def begin(self, child: NewChild) -> int | None:
        """Let an orchestration in before the commit that creates it; return its start message's provisional sequence.

        Only under a GUID, which is hardly ever taken: a turn for an id that then proves to be taken would be one of an
        orchestration that never was.
        """
        if not is_guid(child.row.instance_id):
            return None
        self._memory.merge_child(child.row)
        return self._let_in(child.start)

    def has_begun(self, row: InstanceRow) -> bool:
        """Tell whether an orchestration entered before it was created."""
        mem = self._memory.instance(row.key)
        return (mem is not None and mem.known and mem.row is not None
                and mem.row.execution_id == row.execution_id)

    def _let_in(self, message: NewMessage) -> int:
        self._given += 1
        seq = PROVISIONAL + self._given
        self._memory.merge_rows((QueueRow(seq, message.key, message.execution_id, message.kind, message.events),))
        return seq

    def settle_start(self, key: InstanceKey, provisional: int, row: QueueRow | None) -> None:
        """Follow the commit of a start that entered before it; one that did not come (None) leaves nothing behind."""
        if row is not None:
            self.settle(key, provisional, row)
        elif (mem := self._memory.instance(key)) is not None and mem.has(provisional):
            self._memory.lose(key)  # whoever has the id may have messages

    def settle(self, key: InstanceKey, provisional: int, row: QueueRow | None) -> None:
        """Follow the commit of a message that entered before it: it has its sequence now, or is not ours (None)."""
        memory = self._memory
        mem = memory.instance(key)
        if mem is None or not mem.has(provisional):
            return
        depends = mem.depends_on(provisional)
        memory.remove(mem, frozenset((provisional,)))
        if row is not None:
            memory.merge_rows((row,))
            if depends:
                mem.settled[provisional] = row.seq
        elif depends:
            memory.put_back(mem)
        else:
            memory.consider(mem)

    def redo_overtaken(self, keys: Iterable[InstanceKey]) -> None:
        """Take back the turns that overtook a row which a claim has brought, or a look has found, meanwhile."""
        for key in keys:
            mem = self._memory.instance(key)
            if mem is not None and mem.settled and mem.has_overtaken():
                self._memory.put_back(mem)
