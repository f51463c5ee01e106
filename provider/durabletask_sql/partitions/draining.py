"""Partitions that are about to be handed over: nothing more of them runs, and what is out may still come back. No IO."""

from collections.abc import Callable, Mapping

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.partitions.eviction import AnyMemory


class Draining:
    """Which partitions of a memory drain, and whether something of them is still out."""

    def __init__(self, instances: Mapping[InstanceKey, AnyMemory], consider: Callable[[AnyMemory], None]) -> None:
        """Watch these instances; `consider` makes one ready, or not."""
        self._instances = instances
        self._consider = consider
        self.partitions: set[int] = set()

    def begin(self, partition: int) -> None:
        """Let nothing more of a partition run."""
        self.partitions.add(partition)
        self._look_again(partition)

    def end(self, partition: int) -> None:
        """Go on: it stays, after all."""
        self.partitions.discard(partition)
        self._look_again(partition)

    def allows(self, mem: AnyMemory) -> bool:
        """Tell whether an instance's partition goes on."""
        return mem.key.partition not in self.partitions

    def quiet(self) -> frozenset[int]:
        """Return those of which no turn is out at a worker, or on its way to the database."""
        busy = {mem.key.partition for mem in self._instances.values() if mem.turn is not None}
        return frozenset(self.partitions - busy)

    def _look_again(self, partition: int) -> None:
        for mem in [mem for key, mem in self._instances.items() if key.partition == partition]:
            self._consider(mem)
