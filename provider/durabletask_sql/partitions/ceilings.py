"""Which instances have a ceiling: the lowest of their rows that stayed in the database."""

from collections.abc import Mapping

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.partitions.eviction import AnyMemory


class Ceilings:
    """The instances of one memory that have a ceiling."""

    def __init__(self, instances: Mapping[InstanceKey, AnyMemory]) -> None:
        """Know of none; `instances` are those in memory."""
        self._instances = instances
        self._keys: set[InstanceKey] = set()

    def set(self, mem: AnyMemory, ceiling: int | None) -> None:
        """Set the ceiling of an instance as a claim or a look found it."""
        mem.see_ceiling(ceiling)
        if mem.ceiling is None:
            self._keys.discard(mem.key)
        self.note(mem)

    def note(self, mem: AnyMemory) -> None:
        """Remember an instance if it has a ceiling by now."""
        if mem.ceiling is not None:
            self._keys.add(mem.key)

    def leave(self, key: InstanceKey) -> None:
        """Forget an instance that leaves memory."""
        self._keys.discard(key)

    def full(self) -> frozenset[InstanceKey]:
        """Return the instances that a scan leaves alone: rows of theirs stay behind on purpose."""
        return frozenset(key for key in self._keys if self._instances[key].is_full)

    def stuck(self) -> list[InstanceKey]:
        """Return the instances that their ceiling keeps from running: claimed again at each poll, whatever the room."""
        return [key for key in self._keys if self._instances[key].waits_for_rows]
