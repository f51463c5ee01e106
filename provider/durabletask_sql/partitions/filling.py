"""Which hollow instances get their large texts into memory before they run: as many as fit, longest ready first.

An instance that was read afresh comes without its large texts. They are fetched when its turn is about to be handed out,
and count against a limit until the instance is idle, leaves memory, or is hollow again. One that alone is over the limit
still gets them, when no other has any.
"""

from collections.abc import Mapping

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.ports.committer import HollowHistory
from durabletask_sql.protocol.texts import read_refs


class Filling:
    """Wanted, fetched and filled histories, with what they take."""

    def __init__(self, limit_bytes: int) -> None:
        """Begin with none."""
        self._limit = limit_bytes
        self._wanted: dict[InstanceKey, HollowHistory] = {}
        self._granted: dict[InstanceKey, HollowHistory] = {}

    def want(self, mem: InstanceMemory) -> None:
        """Ask for the texts of an instance that could run with them."""
        granted = self._granted.get(mem.key)
        if mem.row is not None and (granted is None or granted.refs is not mem.refs):
            self._granted.pop(mem.key, None)
            self._wanted[mem.key] = HollowHistory(mem.key, mem.row.execution_id, tuple(mem.history), mem.refs,
                                                  text_bytes(mem.refs))

    def has_work(self) -> bool:
        """Tell whether `take` would return something."""
        return bool(self._wanted) and self._fits(next(iter(self._wanted.values())))

    def take(self) -> list[HollowHistory]:
        """Return what is to be fetched now."""
        taken = []
        while self.has_work():
            hollow = self._wanted.pop(next(iter(self._wanted)))
            self._granted[hollow.key] = hollow
            taken.append(hollow)
        return taken

    def _fits(self, hollow: HollowHistory) -> bool:
        size = sum(granted.text_bytes for granted in self._granted.values())
        return not self._granted or size + hollow.text_bytes <= self._limit

    def is_current(self, hollow: HollowHistory) -> bool:
        """Tell whether what was fetched is still wanted."""
        return self._granted.get(hollow.key) is hollow

    def release(self, key: InstanceKey) -> None:
        """Note that an instance does not need its texts any more, or that others have taken their place."""
        self._wanted.pop(key, None)
        self._granted.pop(key, None)


def text_bytes(refs: Mapping[int, bytes]) -> int:
    """Return how many bytes of text the parts of a hollow history lack."""
    return sum(ref.size for packed in refs.values() for ref in read_refs(packed))
