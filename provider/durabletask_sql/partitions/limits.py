"""How much may be in memory, and what memory asks to be loaded."""

from collections.abc import Mapping
from dataclasses import dataclass

from durabletask_sql.model.instances import InstanceKey


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How much may be in memory: messages a partition, messages and bytes an instance, instances, history bytes."""

    partition_messages: int = 10_000
    share_messages: int = 1_000
    share_bytes: int = 4 * 1024 * 1024
    instances: int = 20_000
    history_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has to be loaded: instances to claim, instances to read afresh, partitions to scan with their room."""

    claims: tuple[InstanceKey, ...]
    fresh: tuple[InstanceKey, ...]
    scan: Mapping[int, int]
