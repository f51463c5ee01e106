"""Which instances are parked when memory runs short, and how memory follows. No IO.

Only what cannot run is parked: instances and entities that nobody takes, and messages of those whose start is not due.
As long as there is room they stay, so that a worker which comes back finds them where they were.
"""

from collections.abc import Iterable, Iterator

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.partitions.entity import EntityMemory
from durabletask_sql.partitions.eviction import AnyMemory
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.partitions.memory import Memory
from durabletask_sql.ports.parking import Park, Parked

ROWS = 5_000  # of one instance in one transaction


class ParkingLot:
    """The instances of one memory that are being parked."""

    def __init__(self, memory: Memory) -> None:
        """Work on this memory."""
        self._memory = memory

    def candidates(self, idle: Iterable[AnyMemory]) -> Iterator[AnyMemory]:
        """Yield whom to park now: instances whose messages come too early, and what nobody takes (`idle`)."""
        if self._is_pressed():
            yield from self._early()
            yield from idle

    def _is_pressed(self) -> bool:
        """Tell whether the messages of a partition take more than half of its room, or histories more than theirs."""
        memory, limits = self._memory, self._memory.limits
        return memory.history_bytes > limits.history_bytes or any(
            2 * memory.room(partition) < limits.partition_messages for partition in memory.epochs)

    def _early(self) -> list[InstanceMemory]:
        """Return the instances whose messages came before their start is due; forget those that have gone on."""
        memory, early = self._memory, list[InstanceMemory]()
        for key in list(memory.early):
            mem = memory.instance(key)
            if mem is not None and mem.rows and mem.is_early and mem.turn is None and mem.lane is None and not mem.stale:
                early.append(mem)
            else:
                del memory.early[key]
        return early

    def begin(self, chosen: Iterable[AnyMemory], host_id: int) -> Park:
        """Keep these instances from running, and return what parks them."""
        keys, timers = list[InstanceKey](), list[tuple[int, int]]()
        for mem in chosen:
            mem.blocked = True
            self._memory.consider(mem)
            keys.append(mem.key)
            timers += [(mem.key.partition, timer.seq) for timer in mem.timers]
        return Park(dict(self._memory.epochs), host_id, tuple(keys), tuple(timers), ROWS)

    def finish(self, park: Park, parked: Parked | None) -> None:
        """Let go of what was parked (None: nothing was). What is left of an instance is read afresh before it runs."""
        memory = self._memory
        for key in park.instances:
            mem = memory.find(key)
            if mem is None or memory.epochs.get(key.partition) != park.epochs[key.partition]:
                continue
            mem.blocked = False
            if parked is not None:
                partition = key.partition
                memory.remove(mem, frozenset(row.seq for row in mem.rows if (partition, row.seq) in parked.messages),
                              frozenset(one.seq for one in mem.timers if (partition, one.seq) in parked.timers))
                if mem.rows or mem.timers:
                    memory.read_afresh(key)
                elif isinstance(mem, EntityMemory):
                    mem.forget()  # where what it hides begins, among what was parked
                memory.early.pop(key, None)
            memory.consider(mem)
            memory.let_go(mem)
