"""Which idle instances leave memory once there is no room for another, or too much history."""

from collections.abc import Callable, Mapping

from durabletask_sql.model.instances import InstanceKey
from durabletask_sql.partitions.entity import EntityMemory
from durabletask_sql.partitions.instance import InstanceMemory
from durabletask_sql.partitions.limits import MemoryLimits

AnyMemory = InstanceMemory | EntityMemory

# A tenth more than needed leaves, so that the next commits need not look again.
_REST = 0.9


def choose_victims(instances: Mapping[InstanceKey, AnyMemory], history_bytes: int, limits: MemoryLimits,
                   is_awaited: Callable[[InstanceKey], bool]) -> list[AnyMemory]:
    """Return who leaves: idle instances that nothing waits for, longest unused (as `instances` are ordered) first."""
    victims: list[AnyMemory] = []
    count, size = len(instances), history_bytes
    if count < limits.instances and size <= limits.history_bytes:
        return victims
    for mem in instances.values():
        if count <= _REST * limits.instances and size <= _REST * limits.history_bytes:
            break
        if mem.is_idle and not is_awaited(mem.key):
            victims.append(mem)
            count -= 1
            size -= mem.history_size
    return victims
